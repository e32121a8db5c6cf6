"""Reads the logs of a run's pods from the API server: what is there, or followed across retries until the run ends."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lorajob.cluster import Cluster, ClusterError, Forbidden, NotFound, Unreachable
from lorajob.logs import log_lines
from lorajob.logs.log_lines import Line, LogFilter
from lorajob.logs.resuming import Resumed
from lorajob.runs import lookup, pod_states
from lorajob.runs.lookup import Found
from lorajob.runs.patience import TRANSIENT_ERRORS, Patience
from lorajob.runs.pod_status import PodStatus
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.kubernetes import CONTAINER

POLL_SECONDS = 1.0
_REPLACED_WITHIN_SECONDS = 10.0
"""A retry deletes the Job and makes a new one of the same name."""
_MORE_LINES = 500
"""Asked for beyond the last lines that are wanted: where the last second began, and lines of other ranks."""
_MORE_EACH_TIME = 8
_LEAST_PART = 4096
"""No container runtime cuts a shorter line into parts."""


def last_lines(lines: Iterable[str], tail: int | None) -> Iterable[str]:
    """All lines, or the last `tail` of them."""
    return lines if tail is None else deque(lines, maxlen=tail)


def of_pods(
    cluster: Cluster,
    pods: Mapping[int, PodStatus],
    wanted: LogFilter,
    *,
    since_seconds: int | None = None,
    tail: int | None = None,
) -> Iterable[str]:
    """The logs of pods, one a node, as far as they are: the nodes' lines in the order of their times, or the last."""
    parts = {
        node: _History(cluster, pod.name, node, wanted, since_seconds).lines(tail)
        for node, pod in pods.items()
        if wanted.has_node(node)
    }
    return last_lines(_shown(log_lines.merged(parts), wanted), tail)


def pods_of_attempt(found: Found, *, ago: int = 0) -> dict[int, PodStatus]:
    """Node -> the newest pod of a run, or an earlier one. Raises Forbidden for a user who may not see pods."""
    return log_lines.pods_of_attempt(_pods_of(found), ago=ago)


def waiting_text(status: RunStatus) -> str:
    """What a run without a log waits for: `Pending: not scheduled: …`."""
    return f"{status.phase}: {status.reason}" if status.reason else status.phase


class Following:
    """Follows the pods of a run, from before they begin and across retries, until the run ends."""

    def __init__(self, cluster: Cluster, name: str, wanted: LogFilter, notice: Callable[[str], None]) -> None:
        """`notice` gets one line whenever what is waited for changes, or a new pod is followed."""
        self._cluster = cluster
        self._name = name
        self._wanted = wanted
        self._notice = notice
        self._said = ""
        self._patience = Patience(notice)
        self._lines: queue.SimpleQueue[tuple[int, Line] | ClusterError] = queue.SimpleQueue()
        self._known: set[str] = set()
        self._may_read = False
        self._streams: list[threading.Thread] = []

    def lines(self, *, since_seconds: int | None, tail: int | None) -> Iterator[str]:
        """What there is already, the last `tail` lines of it, then what comes. Raises NotFound, ClusterError."""
        found = lookup.read(self._cluster, self._name)
        self._known = {pod.name for pod in _pods_of(found) if pod.started is not None}
        begun = {node: pod for node, pod in pods_of_attempt(found).items() if self._wanted.has_node(node)}
        seen = {node: Resumed() for node in begun}
        history = {
            node: _noted(
                _History(self._cluster, pod.name, node, self._wanted, since_seconds).lines(tail, whole_end=True),
                seen[node],
            )
            for node, pod in begun.items()
        }
        yield from last_lines(_shown(log_lines.merged(history), self._wanted), tail)
        self._may_read = bool(begun)
        for node, pod in begun.items():
            self._follow(node, pod, seen[node])
        yield from self._to_the_end()

    def _to_the_end(self) -> Iterator[str]:
        missing_since: float | None = None
        pause = 0.0
        while True:
            yield from self._come_in(POLL_SECONDS + pause)
            pause = 0.0
            try:
                found = lookup.read(self._cluster, self._name)
                pods = _pods_of(found)
            except NotFound:
                missing_since = missing_since or time.monotonic()
                if time.monotonic() - missing_since > _REPLACED_WITHIN_SECONDS:
                    self._notice(f"run {self._name} was deleted")
                    return
                continue
            except TRANSIENT_ERRORS as error:
                pause = self._patience.pause_after(error)
                continue
            self._patience.reset()
            missing_since = None
            for pod in pods:
                if pod.started is not None and pod.name not in self._known and self._wanted.has_node(pod.node):
                    self._notice(f"following pod {pod.name}")
                    self._follow(pod.node, pod, Resumed())
            if not self._is_streaming():
                if found.status.is_terminal:
                    yield from self._come_in(wait_seconds=0)
                    return
                self._say(waiting_text(found.status))

    def _say(self, text: str) -> None:
        if text != self._said:
            self._notice(text)
            self._said = text

    def _is_streaming(self) -> bool:
        return any(thread.is_alive() for thread in self._streams)

    def _follow(self, node: int, pod: PodStatus, seen: Resumed) -> None:
        self._known.add(pod.name)
        thread = threading.Thread(target=self._pump, args=(node, pod.name, seen), daemon=True)
        self._streams.append(thread)
        thread.start()

    def _pump(self, node: int, name: str, seen: Resumed) -> None:
        """Follows one pod's log until it cannot grow any more; what breaks in between is taken up again."""
        patience = Patience(lambda _: None)
        has_ended = False
        while True:
            pause = POLL_SECONDS
            try:
                stream = _stream(self._cluster, name, follow=True, sinceTime=seen.since)
                for line in seen.new(stream):
                    self._lines.put((node, line))
                self._may_read = True
                if has_ended:
                    # this stream began after the pod had ended, so it had the last line
                    return
                [pod] = pod_states.read_pods([self._cluster.get(self._cluster.pods(name))])
                if pod.state in ("Succeeded", "Failed"):
                    has_ended, pause = True, 0.0
                patience.reset()
            except NotFound:
                return
            except ClusterError as error:
                is_passing = isinstance(error, Unreachable) or (self._may_read and isinstance(error, TRANSIENT_ERRORS))
                try:
                    if not is_passing:
                        raise
                    pause = patience.pause_after(error)
                except ClusterError as lasting:
                    self._lines.put(lasting)
                    return
            time.sleep(pause)

    def _come_in(self, wait_seconds: float = POLL_SECONDS) -> Iterator[str]:
        """The lines that arrive within the time, each as it comes."""
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                came = self._lines.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                return
            if isinstance(came, ClusterError):
                raise came
            yield from _shown([came], self._wanted)
            if wait_seconds and time.monotonic() > deadline:
                return


class _History:
    """One pod's log as far as it is."""

    def __init__(self, cluster: Cluster, pod: str, node: int, wanted: LogFilter, since_seconds: int | None) -> None:
        self._cluster = cluster
        self._pod = pod
        self._node = node
        self._wanted = wanted
        self._since_seconds = since_seconds

    def lines(self, tail: int | None, *, whole_end: bool = False) -> Iterator[Line]:
        """All lines as they come; with `tail` those of the end that have so many wanted ones, or more.

        `whole_end`: everything too that would come again from a stream that goes on there.
        """
        if tail is None:
            yield from self._read()
            return
        asked, before = tail + _MORE_LINES, -1
        while True:
            found = list(self._read(tailLines=asked))
            # the container runtime writes a long line in parts, and each counts
            is_whole = len(found) < asked and all(len(line.text) < _LEAST_PART for line in found)
            if is_whole or len(found) == before or self._is_enough(found, tail, whole_end=whole_end):
                yield from found
                return
            asked, before = asked * _MORE_EACH_TIME, len(found)

    def _read(self, **query: Any) -> Iterator[Line]:
        return _stream(self._cluster, self._pod, sinceSeconds=self._since_seconds, **query)

    def _is_enough(self, found: list[Line], tail: int, *, whole_end: bool) -> bool:
        if whole_end:
            end = Resumed()
            for line in found:
                end.take(line)
            if end.begins_with(found[0]):
                return False
        return sum(self._wanted.text(line, self._node) is not None for line in found) >= tail


def _stream(cluster: Cluster, pod: str, **query: Any) -> Iterator[Line]:
    path = cluster.pods(pod) + "/log"
    for data in cluster.lines(path, timeout_seconds=None, container=CONTAINER, timestamps=True, **query):
        yield log_lines.read_line(data)


def _noted(lines: Iterable[Line], seen: Resumed) -> Iterator[Line]:
    for line in lines:
        seen.take(line)
        yield line


def _shown(lines: Iterable[tuple[int, Line]], wanted: LogFilter) -> Iterator[str]:
    for node, line in lines:
        if (text := wanted.text(line, node)) is not None:
            yield text


def _pods_of(found: Found) -> tuple[PodStatus, ...]:
    if found.status.pods is None:
        raise Forbidden("; ".join(found.notes))
    return found.status.pods
