"""Watches the training processes of one attempt: passes a request to stop on, and notices stalls and lost nodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from lorajob_runtime.contract.errors import PEER, STOPPED, LorajobError, PeerError, StalledError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.delivery import at_once
from lorajob_runtime.run.event_stream import EventTailer, EventWriter
from lorajob_runtime.run.launcher import Training
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.run.signals import StopSignals

_LOST_NODE_SECONDS = 1.0
"""How long training here gets to end by itself, with a cause of its own, after another node is lost."""
_NODE_NEWS_SECONDS = 5.0
"""How long a failure here waits for another node to say that it failed: then this one is only its echo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingWatch:
    """Waits for training to end."""

    folder: RunFolder
    limits: Limits
    signals: StopSignals
    events: EventWriter
    tailer: EventTailer
    coordinator: Coordinator | None
    check_lease: Callable[[], None]
    """Raises TakenOverError when another process holds the run."""
    is_in_pod: bool

    def wait(self, training: Training) -> None:
        """Returns when training has done its work. Raises what ended it otherwise; its processes are gone then."""
        try:
            self._watch(training)
        finally:
            training.kill()
            if self.coordinator is not None and training.error is not None:
                self.coordinator.give_up()
        if training.error is not None:
            cause = self._root_cause(training.error)
            if self.coordinator is not None and cause.failure is not PEER:
                self.coordinator.take_blame()
            raise cause

    def _watch(self, training: Training) -> None:
        is_asked = False
        self.tailer.reset_silence()
        while not training.ended(within_seconds=self.limits.poll):
            if self.signals.requested and not is_asked:
                training.ask_to_stop()
                how = at_once(is_in_pod=self.is_in_pod)
                self.events.notice(f"stopping after this step with a checkpoint{how}")
                is_asked = True
            self.check_lease()
            if self.coordinator is not None and (lost := self.coordinator.lost()) is not None:
                if training.ended(within_seconds=_LOST_NODE_SECONDS) and (error := training.error) is not None:
                    raise self._root_cause(error)
                raise lost
            if min(self.tailer.silent_seconds(), self._seconds_since_heartbeat()) > self.limits.stall:
                raise StalledError(f"training gave no sign of life for {self.limits.stall:g} s")

    def _root_cause(self, error: LorajobError) -> LorajobError:
        """What ended training here, or on another node where that is what ended it here."""
        if self.coordinator is None or error.failure not in (PEER, STOPPED):
            return error
        if error.failure is STOPPED:
            return error if self.signals.requested else PeerError(f"another node was asked to stop: {error.message}")
        return self.coordinator.loss(within_seconds=_NODE_NEWS_SECONDS) or error

    def _seconds_since_heartbeat(self) -> float:
        """Since training gave a sign of life that is no event."""
        try:
            return time.time() - self.folder.alive.stat().st_mtime
        except OSError:
            return math.inf
