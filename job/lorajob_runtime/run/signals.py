"""Receives Ctrl-C and SIGTERM: the first one asks for an orderly stop, a second Ctrl-C ends the process at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_SECONDS = 0.5
"""A wrapper like `uv run` passes on the Ctrl-C that the terminal has already sent to the whole group."""


class StopSignals:
    """Takes the signals of this process while it is entered.

    The first one sets `requested`, and inside `interruptible` also raises KeyboardInterrupt. A second Ctrl-C sets
    `forced` and raises it wherever the main thread is. Handlers do no more: what they interrupt may hold a lock.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, echo_seconds: float = ECHO_SECONDS) -> None:
        self.requested = False
        self.forced = False
        self._clock = clock
        self._echo_seconds = echo_seconds
        self._first_at = 0.0
        self._is_interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def seconds_since(self) -> float:
        """How long ago the first signal came; 0 before it."""
        return self._clock() - self._first_at if self.requested else 0.0

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """For work that may be dropped where it stands: the first signal ends it too."""
        if self.requested:
            raise KeyboardInterrupt
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False

    def receive(self, number: int) -> None:
        """One signal."""
        if not self.requested:
            self._first_at = self._clock()
            self.requested = True
            if self._is_interruptible:
                raise KeyboardInterrupt
        elif number == signal.SIGINT and self._clock() - self._first_at >= self._echo_seconds:
            self.forced = True
            raise KeyboardInterrupt

    def __enter__(self) -> StopSignals:
        # only the main thread may; elsewhere the signals are somebody else's
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # nohup, and a shell that starts a job in the background, have a signal ignored
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.receive(number)
