"""Every path and storage key of a run, nowhere else.

    <uri>/<name>/spec.json  events.jsonl  sinks.json  logs/attempt-N/rank-R.log.gz  checkpoints/step-000100/…
                 adapter/…  swanlog/…

Under the run's work folder the same names hold, and beside them `.work/` with what only this machine needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SPEC = "spec.json"
EVENTS = "events.jsonl"
SINKS = "sinks.json"
ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
SWANLOG = "swanlog"
OWNER = "owner.json"
LEASES = "lease"

DATA_PREFIX = ".data"
"""Beside the runs, where none can be named so: `.data/<sha256>/<file>` is a dataset that runs share."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "checkpoint.json"
"""Lists every file of a checkpoint with size and hash; written and uploaded last: without it there is no checkpoint."""
MODEL_CARD = "README.md"
LOSS_CURVE = "loss.png"

RESUME_ONLY = (OPTIMIZER, STATE)
"""The files of a checkpoint that only resuming needs; retention removes them, the adapter stays."""

_PARTS = ".parts"
_STEP = re.compile(r"step-(\d{6,})")


def step_name(step: int) -> str:
    """100 -> step-000100."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """step-000100 -> 100; None for any other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def checkpoint_key(step: int, file: str = "") -> str:
    """Key of a checkpoint, or of one of its files, below the run's prefix."""
    return "/".join(part for part in (CHECKPOINTS, step_name(step), file) if part)


def parts_of(key: str) -> str:
    """Where the parts of a file are that still grows, as below a folder."""
    return f"{key}{_PARTS}"


def whole_key(key: str) -> str:
    """The key of the file that a part belongs to; any other key as it is."""
    whole, parts, _ = key.partition(f"{_PARTS}/")
    return whole if parts else key


def _of_node(log: str, node: int) -> str:
    """The first node's logs have the plain names; those of the others say which node they are of."""
    return f"{log}.log" if node == 0 else f"{log}-{node}.log"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The run's folder on this machine."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / SPEC

    @property
    def events(self) -> Path:
        return self.root / EVENTS

    @property
    def adapter(self) -> Path:
        return self.root / ADAPTER

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / step_name(step)

    def log(self, attempt: int, rank: int) -> Path:
        """The plain text that a training process writes; it is compressed on upload."""
        return self.root / LOGS / f"attempt-{attempt}" / f"rank-{rank}.log"

    @property
    def logs(self) -> Path:
        return self.root / LOGS

    def launcher_log(self, attempt: int, node: int = 0) -> Path:
        """What training processes print before they open their own logs, and what torchrun says."""
        return self.logs / f"attempt-{attempt}" / _of_node("launcher", node)

    def supervisor_log(self, attempt: int, node: int = 0) -> Path:
        """Notices, warnings, and the trace of an error that nobody foresaw."""
        return self.logs / f"attempt-{attempt}" / _of_node("supervisor", node)

    @property
    def work(self) -> Path:
        return self.root / ".work"

    @property
    def lock(self) -> Path:
        return self.work / "lock"

    @property
    def data(self) -> Path:
        """The tokenised dataset."""
        return self.work / "data"

    @property
    def plan(self) -> Path:
        """What the training processes are told: a TrainPlan as JSON."""
        return self.work / "train.json"

    @property
    def stop_request(self) -> Path:
        """Its existence asks training to stop after the current step, with a checkpoint."""
        return self.work / "stop"

    @property
    def alive(self) -> Path:
        """Touched by training where it has nothing to log for a while."""
        return self.work / "alive"

    def cause(self, rank: int) -> Path:
        """Why a training process ended, written by itself."""
        return self.work / f"cause-{rank}.json"

    @property
    def sinks(self) -> Path:
        """What the report sinks remember across restarts: ids and the last step sent."""
        return self.work / SINKS

    @property
    def swanlog(self) -> Path:
        """SwanLab's own folder of this run: `swanlab watch` takes it."""
        return self.root / SWANLOG

    @property
    def swanlab_log(self) -> Path:
        """What SwanLab's SDK prints."""
        return self.work / "swanlab.log"
