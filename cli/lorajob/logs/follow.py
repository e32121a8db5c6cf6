"""Follows the logs of a run's pods, `lorajob logs -f`: from before they begin, across retries, until the run ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from lorajob.cluster import Cluster, ClusterError, NotFound, Unreachable
from lorajob.logs import log_lines, pod_logs
from lorajob.logs.log_lines import Line, LogFilter
from lorajob.logs.seen_lines import SeenLines
from lorajob.runs import lookup, pod_states
from lorajob.runs.patience import TRANSIENT_ERRORS, Patience
from lorajob.runs.pod_status import PodStatus

POLL_SECONDS = 1.0
_REPLACED_WITHIN_SECONDS = 10.0
"""A retry deletes the Job and makes a new one of the same name."""


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
        self._known = {pod.name for pod in pod_logs.pods_of(found) if pod.started is not None}
        begun = {node: pod for node, pod in pod_logs.pods_of_attempt(found).items() if self._wanted.has_node(node)}
        seen = {node: SeenLines() for node in begun}
        history = {
            node: _noted(
                pod_logs.History(self._cluster, pod.name, node, self._wanted, since_seconds).lines(
                    tail, whole_end=True
                ),
                seen[node],
            )
            for node, pod in begun.items()
        }
        yield from pod_logs.last_lines(pod_logs.shown(log_lines.merged(history), self._wanted), tail)
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
                pods = pod_logs.pods_of(found)
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
                    self._follow(pod.node, pod, SeenLines())
            if not self._is_streaming():
                if found.status.is_terminal:
                    yield from self._come_in(wait_seconds=0)
                    return
                self._say(pod_logs.waiting_text(found.status))

    def _say(self, text: str) -> None:
        if text != self._said:
            self._notice(text)
            self._said = text

    def _is_streaming(self) -> bool:
        return any(thread.is_alive() for thread in self._streams)

    def _follow(self, node: int, pod: PodStatus, seen: SeenLines) -> None:
        self._known.add(pod.name)
        thread = threading.Thread(target=self._pump, args=(node, pod.name, seen), daemon=True)
        self._streams.append(thread)
        thread.start()

    def _pump(self, node: int, name: str, seen: SeenLines) -> None:
        """Follows one pod's log until it cannot grow any more; what breaks in between is taken up again."""
        patience = Patience(lambda _: None)
        has_ended = False
        while True:
            pause = POLL_SECONDS
            try:
                stream = pod_logs.stream(self._cluster, name, follow=True, sinceTime=seen.since)
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
            yield from pod_logs.shown([came], self._wanted)
            if wait_seconds and time.monotonic() > deadline:
                return


def _noted(lines: Iterable[Line], seen: SeenLines) -> Iterator[Line]:
    for line in lines:
        seen.take(line)
        yield line
