"""Writes the supervisor's events to the event log, and tails the log in a thread that hands them to the reports."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.events import Event, EventLog, Tail

_NOTICE = "notice"
_WARNING = "warning"
_STORAGE = "storage"
_OUR_REMARKS = (_NOTICE, _WARNING, _STORAGE)


class EventWriter:
    """Adds the supervisor's events from any of its threads, and keeps a log of its own for debugging."""

    def __init__(self, events: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._events = EventLog(events)
        self._log = log
        self._lock = threading.Lock()

    def add(self, event: str, **values: Any) -> None:
        """Appends one event. Raises OSError when the disk does not take it."""
        with self._lock:
            self._events.append(event, **values)

    def notice(self, message: str) -> None:
        """Something the user should read now."""
        self._say(_NOTICE, message)

    def warn(self, message: str) -> None:
        """Something that went wrong and did not end the run."""
        self._say(_WARNING, message)

    def doing(self, message: str) -> None:
        """What the run is busy with, or waits for, until the next phase or step."""
        self._say("doing", message)

    def stored(self, step: int) -> None:
        """That the checkpoint of a step is in storage."""
        # what is lost on a full disk, or after the log was closed, is only news
        with contextlib.suppress(OSError, ValueError):
            self.add("report", name="stored", step=step)

    def storage(self, trouble: str) -> None:
        """What is wrong with storage now; empty when nothing is any more."""
        with contextlib.suppress(OSError, ValueError):
            self.add("report", name=_STORAGE, trouble=trouble)

    def _say(self, level: str, message: str) -> None:
        self.note(f"{level}: {message}")
        # lost on a full disk, whose own message ends the run, and (ValueError) from a report that was left behind
        with contextlib.suppress(OSError, ValueError):
            self.add("report", name=level, message=message)

    def trace(self, error: BaseException) -> None:
        """Keeps where an error came from."""
        self.note("".join(traceback.format_exception(error)))

    def note(self, text: str) -> None:
        """Writes to the supervisor's own log only."""
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text.rstrip()}\n")

    def close(self) -> None:
        # closing tries once more to write what a full disk did not take
        with contextlib.suppress(OSError):
            self._events.close()


class EventTailer:
    """Follows the event log in a thread of its own and posts what comes."""

    def __init__(self, events: Path, post: Callable[[Event], None], *, poll_seconds: float) -> None:
        self._tail = Tail(events)
        self._post = post
        self._poll_seconds = poll_seconds
        self._heard_at = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tailer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after what is in the log now has been posted."""
        self._ending.set()
        self._thread.join()

    def catch_up(self) -> None:
        """Posts what was logged after `stop`."""
        for event in self._tail.read():
            self._post(event)

    def reset_silence(self) -> None:
        """The silence so far does not count."""
        self._heard_at = time.monotonic()

    def silent_seconds(self) -> float:
        """How long no event has come, our own remarks aside."""
        return time.monotonic() - self._heard_at

    def _run(self) -> None:
        while True:
            is_last = self._ending.wait(self._poll_seconds)
            for event in self._tail.read():
                if event.get("name") not in _OUR_REMARKS:
                    self._heard_at = time.monotonic()
                self._post(event)
            if is_last:
                return
