"""One pod of a run at one moment, as it is shown and as a run's status is decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lorajob_runtime.contract.kubernetes import TerminationMessage


@dataclass(frozen=True, kw_only=True, slots=True)
class PodStatus:
    """One pod of a run."""

    name: str
    node: int
    """Which of the run's nodes it is, from 0."""
    state: str
    """Waiting, Running, Stopping, Succeeded or Failed: of the run's own container."""
    reason: str
    host: str | None
    """The Kubernetes node it is on."""
    started: datetime | None
    finished: datetime | None
    exit_code: int | None
    termination_message: TerminationMessage | None
    """How it ended, of one that failed."""
    uid: str = ""
    created: datetime | None = None
    is_reachable: bool = True
    """False: its node does not answer, so what it says of the pod is old."""
    disruption: str = ""
    """What other than the run itself ends or ended it; empty where nothing does."""
    counts: bool = False
    """Whether it failed, and that counts against the Job's limit."""
    is_uncounted: bool = False
    """Whether the Job has not looked yet at how it ended."""
    others: tuple[str, ...] = ()
    """Containers that others put into it and that run."""

    @property
    def runs(self) -> bool:
        """Whether its container can be seen to run."""
        return self.state == "Running" and self.is_reachable


def newest(pods: Sequence[PodStatus]) -> tuple[PodStatus, ...]:
    """The newest pod of each node: an older one has been replaced."""
    return tuple({each.node: each for each in pods}.values())


def moment(text: str | None) -> datetime | None:
    """A time as Kubernetes writes it; None for none, or for what is no time."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
