"""The lines of a run's logs: which are shown, which process each is from, and in what order they come. Pure.

A pod's log has the supervisor's lines as they are and those of a training process behind `[rank 3] `; storage keeps
them in files of their own, an attempt a folder.
"""

from __future__ import annotations

import codecs
import heapq
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from lorajob.runs.pod_status import PodStatus
from lorajob_runtime.contract import layout

_RANKED = re.compile(r"\[rank (\d+)\] ?")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFilter:
    """What of a run's logs is to be shown."""

    rank: int | None = None
    """One training process, counted over all nodes; None: all of them and the supervisors."""
    node: int | None = None
    """One node of the run, None: all."""
    gpus: int = 1
    """Training processes a node."""
    nodes: int = 1
    timestamps: bool = False

    def has_node(self, node: int) -> bool:
        """Whether a node's log can have a wanted line."""
        of_rank = self.rank is None or self.rank // self.gpus == node
        return of_rank and (self.node is None or self.node == node)

    def text(self, line: Line, node: int) -> str | None:
        """A line of a node's pod as it is shown; None when it is not wanted.

        Asked for one rank, its mark is left out; the supervisors of several nodes are told apart.
        """
        match = _RANKED.match(line.text)
        shown = line.text
        if self.rank is not None:
            if match is None or int(match[1]) != self.rank:
                return None
            shown = line.text[match.end() :]
        elif match is None and self.nodes > 1 and self.node is None:
            shown = f"[node {node}] {line.text}"
        return f"{line.time} {shown}" if self.timestamps else shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a pod's log; `time` is what the kubelet put in front of it."""

    time: str
    text: str

    @property
    def moment(self) -> float:
        """The time in Unix seconds; 0 where it is none."""
        try:
            return datetime.fromisoformat(self.time).timestamp()
        except ValueError:
            return 0.0


def read_line(data: bytes) -> Line:
    """A line as the API gives it with `timestamps=true`."""
    text = data.decode("utf-8", "replace").rstrip("\r")
    time, _, rest = text.partition(" ")
    return Line(time=time, text=rest)


def lines_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text that comes in pieces, wherever these are cut; empty ones are left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in itertools.chain(pieces, (b"",)):
        *whole, rest = (rest + decoder.decode(piece, final=not piece)).split("\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest


def merged(streams: Mapping[int, Iterable[Line]]) -> Iterator[tuple[int, Line]]:
    """The lines of several nodes in the order of their times: (node, line). Those of one node keep their order."""

    def of_node(node: int, lines: Iterable[Line]) -> Iterator[tuple[float, int, int, Line]]:
        latest = 0.0
        for number, line in enumerate(lines):
            latest = max(latest, line.moment)
            yield latest, node, number, line

    for _, node, _, line in heapq.merge(*(of_node(node, lines) for node, lines in streams.items())):
        yield node, line


def pods_of_attempt(pods: Iterable[PodStatus], *, ago: int = 0) -> dict[int, PodStatus]:
    """Node -> its newest pod that has begun, or the one `ago` places before it, if it is still there."""
    of_node: dict[int, list[PodStatus]] = {}
    for pod in pods:
        if pod.started is not None:
            of_node.setdefault(pod.node, []).append(pod)
    found = {}
    for node, mine in sorted(of_node.items()):
        mine.sort(key=lambda pod: (pod.started, pod.name))
        if len(mine) > ago:
            found[node] = mine[-1 - ago]
    return found


def attempts(keys: Iterable[str]) -> list[int]:
    """The attempts of which storage has a log, by the keys below the run."""
    return sorted({log.attempt for key in keys if (log := layout.log_of(key)) is not None})


def stored(keys: Iterable[str], attempt: int, wanted: LogFilter) -> list[tuple[str, str]]:
    """The files in storage that have wanted lines: (key, what goes before each line), the supervisors' first."""
    found = []
    for key in keys:
        log = layout.log_of(key)
        if log is None or log.attempt != attempt:
            continue
        kind, number = log.kind, log.number
        if kind == "rank":
            is_wanted = wanted.rank in (None, number) and wanted.has_node(number // wanted.gpus)
        else:
            is_wanted = wanted.rank is None and wanted.has_node(number)
        if is_wanted:
            found.append((kind == "rank", kind != "supervisor", number, key, _mark(kind, number, wanted)))
    return [(key, mark) for *_, key, mark in sorted(found)]


def _mark(kind: str, number: int, wanted: LogFilter) -> str:
    if kind == "rank":
        return "" if wanted.rank is not None else f"[rank {number}] "
    of_node = f"[node {number}] " if wanted.nodes > 1 and wanted.node is None else ""
    return of_node if kind == "supervisor" else f"{of_node}[{kind}] "
