"""Keeps storage up to date in a thread beside training, and tries again while storage does not answer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorajob_runtime.contract.backoff import Pauses
from lorajob_runtime.contract.errors import FullDiskError, LorajobError, StorageError, TakenOverError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import NotPlainError
from lorajob_runtime.storage.store import Store
from lorajob_runtime.storage.sync import StorageSync

_LONGEST_PAUSE_SECONDS = 60.0
_LONGEST_LAST_PAUSE_SECONDS = 5.0
_TICK_SECONDS = 0.2
_LET_GO_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadIntervals:
    """How often the uploader does what, in seconds."""

    look: float = 1.0
    events: float = 30.0
    """The event log and the logs of the attempt."""
    retry: float = 1.0
    """The first pause after a failure; they double up to a minute, at the end of the run up to 5 s."""


class Uploader:
    """Uploads finished checkpoints and the event log as they come; the rest on `drain`."""

    def __init__(
        self,
        store: Store,
        folder: RunFolder,
        *,
        keep: int,
        intervals: UploadIntervals,
        warn: Callable[[str], None],
        reports: Sequence[str] = (),
        on_stored: Callable[[int], None] = lambda step: None,
        trouble: Callable[[str], None] = lambda message: None,
        consequence: str = "",
        confirm: Callable[[], None] = lambda: None,
        prove: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep`: how many checkpoints stay resumable. `reports`: the folders that report sinks keep.

        `warn` is told when storage goes and when it is back, `on_stored` the step of each checkpoint that is there.
        `trouble` is told what is wrong with storage whenever that changes, with an empty text when nothing is.
        `consequence` is what a failure means for the run, in a few words. `confirm` raises TakenOverError when nothing
        may be written any more; `prove` too, which asks storage: before a checkpoint, its manifest and the logs.
        """
        self._uri = store.uri
        self._sync = StorageSync(store, folder, keep=keep, reports=reports, on_stored=on_stored, prove=prove)
        self._consequence = consequence
        self._confirm = confirm
        self._prove = prove
        self._intervals = intervals
        self._warn = warn
        self._tell_trouble = trouble
        self._told = ""
        # at once, so that an attempt that is lost has left a trace
        self._events_due = time.monotonic()
        self._changed = threading.Condition()
        self._drain_requests = 0
        self._drained = 0
        self._adapter_is_ready = False
        self._is_closed = False
        self._error: LorajobError | None = None
        self._failing_since = 0.0
        self._uploads_then = 0
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def adapter_is_ready(self) -> None:
        """From now on the adapter is uploaded too."""
        self._adapter_is_ready = True

    def drain(
        self,
        patience_seconds: Callable[[], float],
        *,
        left_seconds: Callable[[], float] = lambda: math.inf,
        insists: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> LorajobError | None:
        """Waits until all there is now has been uploaded, logs too. Returns why not, when storage fails for too long.

        An upload that gets on may take its time: patience is for storage that fails again and again; it is asked for
        again and again. A refusal that only a person can change (a wrong key, a bucket that is gone, a full disk)
        ends the wait at once, unless it `insists`; what is not a regular file always does. After `left_seconds` it
        ends in any case, also where storage hangs and so has not failed yet. `tick` is called several times a second.
        Raises TakenOverError.
        """
        began = time.monotonic()
        with self._changed:
            self._error = None
            self._drain_requests += 1
            request = self._drain_requests
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._drained >= request or self._fault is not None, _TICK_SECONDS)
                if self._fault is not None:
                    raise self._fault
                if self._drained >= request:
                    return None
                if self._error is not None:
                    is_refused = self._error.failure.final or isinstance(self._error, FullDiskError)
                    is_final = is_refused and (not insists or isinstance(self._error, NotPlainError))
                    waited = time.monotonic() - max(began, self._failing_since)
                    if is_final or waited >= patience_seconds():
                        return self._error
                if left_seconds() <= 0:
                    late = f"{self._uri} has not taken all finished work within the time that this pod has to stop"
                    return self._error or StorageError(late)
            tick()

    def close(self) -> None:
        """Ends the thread; one that hangs in a call to storage is left behind."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_LET_GO_SECONDS)

    def _run(self) -> None:
        try:
            self._keep_up()
        except Exception as error:  # noqa: BLE001 a fault in this thread must reach the one that waits for it
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _keep_up(self) -> None:
        failures = 0
        pauses = Pauses(first_seconds=self._intervals.retry, longest_seconds=_LONGEST_PAUSE_SECONDS)
        while not self._is_closed:
            request = self._drain_requests
            try:
                self._confirm()
                self._upload(all_of_it=request > self._drained)
            except TakenOverError:
                raise
            except (LorajobError, OSError) as error:
                failures += 1
                self._failed(error, first=failures == 1)
            else:
                if failures:
                    self._warn("storage answers again: everything finished is uploaded")
                    self._say_trouble("")
                    pauses.reset()
                failures = 0
            with self._changed:
                if not failures:
                    self._drained = request
                    self._changed.notify_all()
                if self._drain_requests == request and not self._is_closed:
                    self._changed.wait(self._pause(pauses) if failures else self._intervals.look)

    def _upload(self, *, all_of_it: bool) -> None:
        is_due = all_of_it or time.monotonic() >= self._events_due
        if is_due:
            self._prove()
        self._sync.checkpoints()
        if all_of_it and self._adapter_is_ready:
            self._sync.adapter()
        if all_of_it:
            self._sync.reports()
        if is_due:
            self._sync.logs(whole=all_of_it)
            self._sync.events(whole=all_of_it)
            self._events_due = time.monotonic() + self._intervals.events

    def _pause(self, pauses: Pauses) -> float:
        seconds = pauses.take()
        return seconds if self._drain_requests == self._drained else min(seconds, _LONGEST_LAST_PAUSE_SECONDS)

    def _failed(self, error: LorajobError | OSError, *, first: bool) -> None:
        known = error if isinstance(error, LorajobError) else StorageError(f"cannot upload: {error}")
        if first:
            self._warn(f"{known.message}; {self._consequence}")
        self._say_trouble(known.message)
        with self._changed:
            if first or self._sync.uploads > self._uploads_then:
                self._failing_since = time.monotonic()
                self._uploads_then = self._sync.uploads
            self._error = known
            self._changed.notify_all()

    def _say_trouble(self, message: str) -> None:
        if message != self._told:
            self._told = message
            self._tell_trouble(message)
