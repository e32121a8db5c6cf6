"""Says how long a supervisor waits for storage, reports, training and other nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorajob_runtime.run.signals import ECHO_SECONDS, StopSignals
from lorajob_runtime.storage import ownership
from lorajob_runtime.storage.uploader import UploadIntervals
from lorajob_runtime.system.environment import Environment

STORAGE_AT_END_SECONDS = 120.0
STORAGE_AT_END_IN_POD_SECONDS = 2 * 3600.0
"""A pod's disk goes with it, so hours of training hang on this. The run's own time limit bounds it."""
STORAGE_WHEN_STOPPED_SECONDS = 60.0
"""In a pod that was told to stop and does not know its grace period: half of the default one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """In seconds."""

    storage_at_start: float = 30
    storage_at_end: float = STORAGE_AT_END_SECONDS
    """While uploads fail; one that gets on is waited for."""
    storage_when_stopped: float = STORAGE_AT_END_SECONDS
    """The same, once the run was asked to stop."""
    storage_for_logs: float = STORAGE_AT_END_SECONDS
    """The same, where a run that would fail again has only logs to bring there."""
    grace: float = math.inf
    """From the first signal until this process is killed."""
    stall: float = 1800
    """Without any sign of life while training."""
    sinks_at_end: float = 20
    poll: float = 0.2
    echo: float = ECHO_SECONDS
    """A second Ctrl-C that comes sooner is the first one, passed on."""
    lease: ownership.LeaseIntervals = ownership.LeaseIntervals()  # noqa: RUF009 frozen
    pace: UploadIntervals = UploadIntervals()  # noqa: RUF009 frozen

    @property
    def closing_reserve(self) -> float:
        """How much of the grace period is kept for what follows the last upload: reports, lease, termination."""
        return min(30.0, self.grace / 4)

    def until_closing(self, signals: StopSignals) -> float:
        """How long storage may still be waited for; without a signal there is no end."""
        return self.grace - signals.seconds_since - self.closing_reserve if signals.requested else math.inf

    def for_reports(self, signals: StopSignals) -> float:
        """How long reports may take to finish, now."""
        left = self.grace - signals.seconds_since if signals.requested else math.inf
        return max(0.0, min(self.sinks_at_end, left / 4))


def limits_of(environment: Environment) -> Limits:
    """The limits for a run here: a pod holds out longer for what only its own disk has."""
    grace = math.inf
    if environment.pod is None:
        patience, stopped = STORAGE_AT_END_SECONDS, STORAGE_AT_END_SECONDS
    else:
        patience, stopped = STORAGE_AT_END_IN_POD_SECONDS, STORAGE_WHEN_STOPPED_SECONDS
        if environment.grace_seconds is not None:
            # in the other half it also finishes a step
            grace, stopped = environment.grace_seconds, environment.grace_seconds / 2
    if environment.storage_patience_seconds is not None:
        patience = environment.storage_patience_seconds
    return Limits(
        storage_at_end=patience,
        storage_when_stopped=min(patience, stopped),
        grace=grace,
        lease=ownership.LeaseIntervals(release=min(ownership.LeaseIntervals().release, grace / 24)),
        stall=environment.stall_seconds or Limits().stall,
    )
