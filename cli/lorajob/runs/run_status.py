"""One run at one moment, as every command shows it: its phase, why, how far it is, and its pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lorajob.runs.pod_status import PodStatus
from lorajob_runtime.contract.kubernetes import Progress, TerminationMessage

PHASES = (
    "Pending",
    "Suspended",
    "Downloading",
    "Preparing",
    "Training",
    "Publishing",
    "Succeeded",
    "Failed",
    "Cancelled",
)
RUNNING = frozenset({"Downloading", "Preparing", "Training", "Publishing"})
TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """One run at one moment."""

    name: str
    namespace: str
    uid: str
    phase: str
    """One of PHASES."""
    reason: str
    """Why it is in this phase, one line; empty where the phase says all."""
    model: str
    data: str | None
    gpus: int
    """GPUs a node."""
    nodes: int
    queue: str | None
    created: datetime | None
    started: datetime | None
    """When it was started, or last resumed."""
    finished: datetime | None
    attempts: int
    """Attempts begun since the run was submitted or last retried, counting the present one."""
    retries: int
    """How many attempts may fail before the run has failed."""
    progress: Progress | None
    """The last report: of the pod that runs now, or how far a run came that does not run. None when out of date."""
    is_progressing: bool
    """Whether that is what it does now: reported a short while ago, by a pod that can be seen to run."""
    failure: TerminationMessage | None
    """Of a failed run: why."""
    storage_uri: str | None
    """Where the results of runs like this are, each below its own name."""
    image: str | None
    pods: tuple[PodStatus, ...] | None = None
    """None where nobody looked at them."""

    @property
    def storage(self) -> str | None:
        """Where its results are: `<uri>/<name>`."""
        return f"{self.storage_uri}/{self.name}" if self.storage_uri else None

    @property
    def is_terminal(self) -> bool:
        return self.phase in TERMINAL

    @property
    def is_running(self) -> bool:
        return self.phase in RUNNING


def percent(progress: Progress) -> float | None:
    """Share of the optimizer steps that are done, from 0 to 100; None before their number is known."""
    return min(100.0, 100 * progress.step / progress.total_steps) if progress.total_steps else None
