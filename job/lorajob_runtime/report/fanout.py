"""Hands events to sinks, each in a thread of its own behind a bounded queue, so that none holds up the rest."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.text import whole_error
from lorajob_runtime.report.sink import IdleSink, Sink

CAPACITY = 20_000
"""Events that may wait for one sink: about 20 MB. A resumed run posts its whole log at once."""

_FORCE_CLOSE_SECONDS = 1.0
_IDLE_SECONDS = 1.0


class Fanout:
    """Posts each event to every sink. `warn` gets one line a fault, from any thread."""

    def __init__(self, sinks: Sequence[Sink], warn: Callable[[str], None], *, capacity: int = CAPACITY) -> None:
        self._workers = [_SinkWorker(sink, warn, capacity) for sink in sinks]
        self._closed = False

    def post(self, event: Event) -> None:
        """Queues an event for every sink. Never blocks and never raises."""
        for worker in self._workers:
            worker.post(event)

    def close(self, limit_seconds: float) -> None:
        """Lets the sinks take what waits and finish, all together within the limit (and a moment to let go)."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + limit_seconds
        for worker in self._workers:
            worker.finish(deadline)
        for worker in self._workers:
            worker.join(deadline)


class _SinkWorker:
    """One sink, its queue and its thread."""

    def __init__(self, sink: Sink, warn: Callable[[str], None], capacity: int) -> None:
        self._sink = sink
        self._warn = warn
        self._capacity = capacity
        self._queue: deque[Event] = deque()
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._dropped = 0
        self._is_off = False
        self._thread = threading.Thread(target=self._run, name=f"report-{sink.name}", daemon=True)
        self._thread.start()

    def post(self, event: Event) -> None:
        with self._changed:
            if self._is_off or self._deadline is not None:
                return
            self._queue.append(event)
            if len(self._queue) > self._capacity:
                self._drop_oldest_step()
            self._changed.notify()

    def finish(self, deadline: float) -> None:
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()) + _FORCE_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"report to {self._sink.name} did not finish in time and was abandoned")
            force_close = threading.Thread(target=self._close_sink, args=(0.0,), daemon=True)
            force_close.start()
            force_close.join(_FORCE_CLOSE_SECONDS)
        if self._dropped:
            self._warn(f"report to {self._sink.name} was too slow: {self._dropped} step events were left out")

    def _drop_oldest_step(self) -> None:
        """Makes room. Only steps can be missed: everything else is rare, and said once."""
        for index, event in enumerate(self._queue):
            if event["event"] == "step":
                del self._queue[index]
                self._dropped += 1
                return

    def _run(self) -> None:
        try:
            while self._wait():
                event = self._take()
                if event is not None:
                    self._sink.handle(event)
                elif isinstance(self._sink, IdleSink):
                    self._sink.idle()
        except Exception as error:  # noqa: BLE001 a sink may fail in any way, and training goes on
            self._switch_off(error)
        with self._changed:
            while self._deadline is None:
                self._changed.wait()
            left = self._deadline - time.monotonic()
        self._close_sink(max(0.0, left))

    def _wait(self) -> bool:
        """Waits a while for an event. False when none waits and the worker is to finish."""
        with self._changed:
            if not self._queue and self._deadline is None:
                self._changed.wait(_IDLE_SECONDS)
            return bool(self._queue) or self._deadline is None

    def _take(self) -> Event | None:
        with self._changed:
            return self._queue.popleft() if self._queue else None

    def _switch_off(self, error: Exception) -> None:
        with self._changed:
            self._is_off = True
            self._queue.clear()
        self._warn(f"report to {self._sink.name} is off: {whole_error(error)}")

    def _close_sink(self, limit_seconds: float) -> None:
        try:
            self._sink.close(limit_seconds)
        except Exception as error:  # noqa: BLE001 as above
            if not self._is_off:
                self._switch_off(error)
