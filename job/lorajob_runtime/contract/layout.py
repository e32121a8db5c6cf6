"""Every path and storage key of a run, nowhere else.

    <uri>/<name>/spec.json  events.jsonl  sinks.json  logs/attempt-N/rank-R.log.gz  checkpoints/step-000100/…
                 adapter/…  swanlog/… and the folders of other reports

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
OWNER = "owner.json"
LEASES = "lease"

DATA_PREFIX = ".data"
"""Beside the runs, where none can be named so: the datasets that runs share, by `data_key`."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "checkpoint.json"
"""Lists every file of a checkpoint with size and hash; written and uploaded last: without it there is no checkpoint."""
MODEL_CARD = "README.md"
LOSS_CURVE = "loss.png"

TRAIN_ROWS = "train.safetensors"
EVAL_ROWS = "eval.safetensors"
SAMPLE_PROMPTS = "samples.json"
DATA_REPORT = "report.json"
"""The files of a tokenised dataset."""

RESUME_ONLY = (OPTIMIZER, STATE)
"""The files of a checkpoint that only resuming needs; retention removes them, the adapter stays."""

_PARTS = ".parts"
_STEP = re.compile(r"step-(\d{6,})")
_ATTEMPT = re.compile(r"attempt-(\d+)")
_LOG = re.compile(r"([a-z]+)(?:-(\d+))?\.log")
_LEASE = re.compile(rf"{LEASES}/(\d+)\.json")

ATTEMPT_PATTERN = "attempt-*"
LOG_PATTERN, RANK_LOG_PATTERN = f"{ATTEMPT_PATTERN}/*.log", f"{ATTEMPT_PATTERN}/rank-*.log"
"""What to look for below a run's folder of logs on this machine."""


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


def checkpoint_file(key: str) -> tuple[int, str] | None:
    """checkpoints/step-000100/state.json -> (100, state.json); None for a key of anything else."""
    folder, *rest = key.split("/")
    step = step_of(rest[0]) if folder == CHECKPOINTS and len(rest) == 2 else None
    return None if step is None else (step, rest[1])


def data_key(sha256: str, file: str) -> str:
    """Key of a dataset below DATA_PREFIX: of the same content, by its SHA-256 in hexadecimal digits, there is one."""
    return f"{sha256}/{file}"


def data_address(storage_uri: str, key: str) -> str:
    """The address of a dataset's file, for `data.source`: `<uri>/.data/<sha256>/<file>`."""
    return f"{storage_uri.rstrip('/')}/{DATA_PREFIX}/{key}"


def data_file(address: str) -> str | None:
    """The name of the file at an address of `data_address`; None for any other address."""
    return address.rpartition("/")[2] if f"/{DATA_PREFIX}/" in address else None


def adapter_key(file: str) -> str:
    """Key of a file of the published adapter."""
    return f"{ADAPTER}/{file}"


def attempt_name(attempt: int) -> str:
    """3 -> attempt-3, the folder of an attempt's logs."""
    return f"attempt-{attempt}"


def attempt_of(name: str) -> int | None:
    """attempt-3 -> 3; None for any other name."""
    match = _ATTEMPT.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log of an attempt: of a training process (`kind` is rank), or of a node's launcher or supervisor."""

    attempt: int
    kind: str
    number: int
    """The rank over all nodes, or the node."""


def log_key(attempt: int, file: str) -> str:
    """Key of a log, compressed, whose file on this machine is called `file`."""
    return f"{LOGS}/{attempt_name(attempt)}/{file}.gz"


def log_of(key: str) -> LogFile | None:
    """Which log a key is of; None for a key of anything else."""
    folder, *rest = key.removesuffix(".gz").split("/")
    if folder != LOGS or len(rest) != 2 or not key.endswith(".gz"):
        return None
    attempt, match = attempt_of(rest[0]), _LOG.fullmatch(rest[1])
    return None if attempt is None or match is None else LogFile(attempt, match[1], int(match[2] or 0))


def attempt_in(key: str) -> int | None:
    """The attempt that a key below the logs belongs to."""
    parts = key.split("/")
    return attempt_of(parts[1]) if parts[0] == LOGS and len(parts) > 1 else None


def rank_of_log(name: str) -> int | None:
    """rank-3.log -> 3; None for any other name."""
    match = _LOG.fullmatch(name)
    return int(match[2]) if match and match[1] == "rank" and match[2] else None


def lease_key(number: int) -> str:
    """Key of a lease; the one with the highest number counts."""
    return f"{LEASES}/{number:06d}.json"


def lease_number(key: str) -> int | None:
    """lease/000001.json -> 1; None for a key of anything else."""
    match = _LEASE.fullmatch(key)
    return int(match[1]) if match else None


def parts_of(key: str) -> str:
    """Where the parts of a file are that still grows, as below a folder."""
    return f"{key}{_PARTS}"


def part_key(key: str, offset: int, sha256: str) -> str:
    """Key of the part that follows the first `offset` bytes of a file, of this SHA-256 in hexadecimal digits."""
    return f"{parts_of(key)}/{offset:012d}-{sha256[:16]}"


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
        return self.logs / attempt_name(attempt) / f"rank-{rank}.log"

    @property
    def logs(self) -> Path:
        return self.root / LOGS

    def launcher_log(self, attempt: int, node: int = 0) -> Path:
        """What training processes print before they open their own logs, and what torchrun says."""
        return self.logs / attempt_name(attempt) / _of_node("launcher", node)

    def supervisor_log(self, attempt: int, node: int = 0) -> Path:
        """Notices, warnings, and the trace of an error that nobody foresaw."""
        return self.logs / attempt_name(attempt) / _of_node("supervisor", node)

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
    def train_rows(self) -> Path:
        return self.data / TRAIN_ROWS

    @property
    def eval_rows(self) -> Path:
        """There is none when no row is held out."""
        return self.data / EVAL_ROWS

    @property
    def sample_prompts(self) -> Path:
        return self.data / SAMPLE_PROMPTS

    @property
    def data_report(self) -> Path:
        return self.data / DATA_REPORT

    @property
    def train_job(self) -> Path:
        """What the training processes are told: a TrainJob as JSON."""
        return self.work / "train.json"

    @property
    def stop_request(self) -> Path:
        """Its existence asks training to stop after the current step, with a checkpoint."""
        return self.work / "stop"

    @property
    def data_awaited(self) -> Path:
        """While it exists, training processes that have started already wait for the dataset."""
        return self.work / "data-awaited"

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

    def report(self, name: str) -> Path:
        """A report sink's own folder of this run; `name` is that of its SinkType."""
        return self.root / name

    def report_log(self, name: str) -> Path:
        """What the library of a report sink prints."""
        return self.work / f"{name}.log"
