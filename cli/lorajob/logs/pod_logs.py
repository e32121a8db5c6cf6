"""Reads the logs of a run's pods from the API server, as far as they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lorajob.cluster import Cluster, Forbidden
from lorajob.logs import log_lines
from lorajob.logs.log_lines import Line, LogFilter
from lorajob.logs.seen_lines import SeenLines
from lorajob.runs.lookup import Found
from lorajob.runs.pod_status import PodStatus
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.kubernetes import CONTAINER

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
        node: History(cluster, pod.name, node, wanted, since_seconds).lines(tail)
        for node, pod in pods.items()
        if wanted.has_node(node)
    }
    return last_lines(shown(log_lines.merged(parts), wanted), tail)


def pods_of_attempt(found: Found, *, ago: int = 0) -> dict[int, PodStatus]:
    """Node -> the newest pod of a run, or an earlier one. Raises Forbidden for a user who may not see pods."""
    return log_lines.pods_of_attempt(pods_of(found), ago=ago)


def waiting_text(status: RunStatus) -> str:
    """What a run without a log waits for: `Pending: not scheduled: …`."""
    return f"{status.phase}: {status.reason}" if status.reason else status.phase


class History:
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
        return stream(self._cluster, self._pod, sinceSeconds=self._since_seconds, **query)

    def _is_enough(self, found: list[Line], tail: int, *, whole_end: bool) -> bool:
        if whole_end:
            end = SeenLines()
            for line in found:
                end.take(line)
            if end.begins_with(found[0]):
                return False
        return sum(self._wanted.text(line, self._node) is not None for line in found) >= tail


def stream(cluster: Cluster, pod: str, **query: Any) -> Iterator[Line]:
    """The lines of a pod's log as they come, with their times. Raises ClusterError."""
    path = cluster.pods(pod) + "/log"
    for data in cluster.lines(path, timeout_seconds=None, container=CONTAINER, timestamps=True, **query):
        yield log_lines.read_line(data)


def shown(lines: Iterable[tuple[int, Line]], wanted: LogFilter) -> Iterator[str]:
    """Of (node, line) those that are wanted, as they are shown."""
    for node, line in lines:
        if (text := wanted.text(line, node)) is not None:
            yield text


def pods_of(found: Found) -> tuple[PodStatus, ...]:
    """The pods of a run, of all attempts. Raises Forbidden for a user who may not see pods."""
    if found.status.pods is None:
        raise Forbidden("; ".join(found.notes))
    return found.status.pods
