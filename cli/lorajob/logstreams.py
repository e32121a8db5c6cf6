"""The logs of a run's pods from the API server: as far as they are, or followed across retries until the run ends."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from lorajob import logs, reasons, runs
from lorajob.cluster import Cluster, ClusterError, Forbidden, NotFound, Unreachable
from lorajob.logs import Line, Wanted
from lorajob.reasons import PodStatus
from lorajob.runs import Found
from lorajob.status import RunStatus
from lorajob_runtime.pod import CONTAINER

POLL_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_REPLACED_WITHIN_SECONDS = 10.0
"""A retry deletes the Job and makes a new one of the same name."""


def last_lines(lines: Iterable[str], tail: int | None) -> Iterable[str]:
    """All lines, or the last `tail` of them."""
    return lines if tail is None else deque(lines, maxlen=tail)


def of_pods(
    cluster: Cluster, pods: Mapping[int, PodStatus], wanted: Wanted, *, since_seconds: int | None = None
) -> Iterator[str]:
    """The logs of pods, one a node, as far as they are: the nodes' lines in the order of their times."""
    for node, line in logs.merged(_read(cluster, pods, wanted, since_seconds)):
        if (text := wanted.text(line, node)) is not None:
            yield text


def newest_of(found: Found, *, back: int = 0) -> dict[int, PodStatus]:
    """Node -> the newest pod of a run, or an earlier one. Raises Forbidden for a user who may not see pods."""
    if found.status.pods is None:
        raise Forbidden("; ".join(found.notes))
    return logs.newest(found.status.pods, back=back)


def waiting_text(status: RunStatus) -> str:
    """What a run without a log waits for: `Pending: not scheduled: …`."""
    return f"{status.phase}: {status.reason}" if status.reason else status.phase


class Following:
    """Follows the newest pods of a run, from before they begin and across retries, until the run ends."""

    def __init__(self, cluster: Cluster, name: str, wanted: Wanted, notice: Callable[[str], None]) -> None:
        """`notice` gets one line whenever what is waited for changes, or a new pod is followed."""
        self._cluster = cluster
        self._name = name
        self._wanted = wanted
        self._notice = notice
        self._said = ""
        self._lines: queue.SimpleQueue[tuple[int, Line] | ClusterError] = queue.SimpleQueue()
        self._followed: dict[str, threading.Thread] = {}

    def lines(self, *, since_seconds: int | None, tail: int | None) -> Iterator[str]:
        """What there is already, the last `tail` lines of it, then what comes. Raises NotFound, ClusterError."""
        begun = self._begun(runs.read(self._cluster, self._name))
        history = _read(self._cluster, begun, self._wanted, since_seconds)
        yield from last_lines(self._shown(logs.merged(history)), tail)
        for node, pod in begun.items():
            self._follow(node, pod, history[node][-1].time if history[node] else None)
        missing_since: float | None = None
        while True:
            yield from self._come_in()
            try:
                found = runs.read(self._cluster, self._name)
            except NotFound:
                missing_since = missing_since or time.monotonic()
                if time.monotonic() - missing_since > _REPLACED_WITHIN_SECONDS:
                    self._notice(f"run {self._name} was deleted")
                    return
                continue
            except Unreachable as error:
                self._say(f"{error.message}; trying again")
                continue
            missing_since = None
            for node, pod in self._begun(found).items():
                if pod.name not in self._followed:
                    self._notice(f"following pod {pod.name}")
                    self._follow(node, pod, None)
            if not self._is_streaming():
                if found.status.is_terminal:
                    yield from self._come_in(wait_seconds=0)
                    return
                self._say(waiting_text(found.status))

    def _begun(self, found: Found) -> dict[int, PodStatus]:
        pods = newest_of(found)
        return {node: pod for node, pod in pods.items() if self._wanted.has_node(node)}

    def _shown(self, lines: Iterable[tuple[int, Line]]) -> Iterator[str]:
        for node, line in lines:
            if (text := self._wanted.text(line, node)) is not None:
                yield text

    def _say(self, text: str) -> None:
        if text != self._said:
            self._notice(text)
            self._said = text

    def _is_streaming(self) -> bool:
        return any(thread.is_alive() for thread in self._followed.values())

    def _follow(self, node: int, pod: PodStatus, last: str | None) -> None:
        thread = threading.Thread(target=self._pump, args=(node, pod.name, last), daemon=True)
        self._followed[pod.name] = thread
        thread.start()

    def _pump(self, node: int, name: str, last: str | None) -> None:
        """Follows one pod's log until it cannot grow any more; what breaks in between is taken up again."""
        while True:
            try:
                for data in self._cluster.lines(
                    self._cluster.pods(name) + "/log",
                    timeout_seconds=None,
                    container=CONTAINER,
                    follow=True,
                    timestamps=True,
                    sinceTime=last,
                ):
                    line = logs.read_line(data)
                    # whole seconds are asked for, so the first lines may be known already
                    if last is None or line.time > last:
                        last = line.time
                        self._lines.put((node, line))
                if reasons.read_pods([self._cluster.get(self._cluster.pods(name))])[0].state in ("Succeeded", "Failed"):
                    return
            except NotFound:
                return
            except Unreachable:
                pass
            except ClusterError as error:
                self._lines.put(error)
                return
            time.sleep(_RECONNECT_SECONDS)

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
            yield from self._shown([came])
            if wait_seconds and time.monotonic() > deadline:
                return


def _read(
    cluster: Cluster, pods: Mapping[int, PodStatus], wanted: Wanted, since_seconds: int | None
) -> dict[int, list[Line]]:
    found: dict[int, list[Line]] = {}
    for node, pod in pods.items():
        if wanted.has_node(node):
            path = cluster.pods(pod.name) + "/log"
            answer = cluster.lines(
                path, timeout_seconds=None, container=CONTAINER, timestamps=True, sinceSeconds=since_seconds
            )
            found[node] = [logs.read_line(data) for data in answer]
    return found
