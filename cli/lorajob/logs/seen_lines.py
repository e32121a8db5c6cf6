"""Continues a pod's log where its stream broke off, so that each line comes once. Pure.

The API gives a log from a whole second on, and several lines may have one time: CRI-O stamps a whole buffer alike. So
the time of the last line does not say which of those that come again are new; the lines themselves do, in their order.
https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/logs/logs.go is who answers.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from lorajob.logs.log_lines import Line

_OVERLAP_SECONDS = 1
"""More than asked for: of the two streams of a container a line may get into the file after one of a later time."""


class SeenLines:
    """What was shown of one pod's log, as far back as it would come again."""

    def __init__(self) -> None:
        self._shown: deque[Line] = deque()
        self._latest = 0.0
        self._is_cut = False

    @property
    def since(self) -> str | None:
        """From when on the log is to be asked for; None: from its beginning."""
        if not self._latest:
            return None
        return datetime.fromtimestamp(self._begin(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def take(self, line: Line) -> None:
        """Notes a line that is shown."""
        self._latest = max(self._latest, line.moment)
        self._shown.append(line)
        begin = self._begin()
        while len(self._shown) > 1 and self._shown[0].moment < begin:
            self._shown.popleft()

    def new(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Of the lines of a stream that begins at `since`, those that were not shown; each counts as shown then.

        Lines that a rotation took away in between do not come again, and those of a line that the container runtime
        wrote in parts may come without its beginning.
        """
        again = deque(self._shown) if self._latest else deque()
        coming = iter(lines)
        for line in coming:
            if not again:
                coming = itertools.chain((line,), coming)
                break
            if line in again:
                while again.popleft() != line:
                    pass
            elif line.moment >= self._latest:
                # nothing of what was shown comes any more
                if self._is_cut and line.time == again[-1].time and line.text.startswith(again[-1].text):
                    yield self._end_of(line)
                else:
                    coming = itertools.chain((line,), coming)
                break
        self._is_cut = False
        for line in coming:
            self.take(line)
            yield line
        self._is_cut = True

    def _end_of(self, line: Line) -> Line:
        """What is new of a line whose beginning the last stream ended with."""
        cut = self._shown.pop()
        self.take(line)
        return Line(time=line.time, text=line.text[len(cut.text) :])

    def begins_with(self, line: Line) -> bool:
        """Whether nothing before this line was noted, though a stream from `since` on might have more before it."""
        return bool(self._shown) and self._shown[0] is line

    def _begin(self) -> int:
        return int(self._latest) - _OVERLAP_SECONDS
