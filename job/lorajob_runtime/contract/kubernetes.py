"""What a run's pods and the Job around them agree on: labels, annotations, mounts, variables, progress, termination.

Standard library only: the command line writes one side of it and reads the other, the container the reverse.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import ConfigError

T = TypeVar("T")

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "lorajob"
RUN_LABEL = "lorajob.dev/run"
"""On everything that belongs to a run: the Job, its pods, Service and ConfigMap. Its value is the run's name."""
MODEL_LABEL = "lorajob.dev/model"
"""The catalog's name of the model, or what of its hub id can be a label's value."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Which of Kueue's LocalQueues the run waits in: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/."""

SPEC_ANNOTATION = "lorajob.dev/spec"
"""The RunSpec as JSON without defaults: on the pod template only, since every copy makes a list of runs slower."""
PROGRESS_ANNOTATION = "lorajob.dev/progress"
CANCELLED_ANNOTATION = "lorajob.dev/cancelled"
"""On a suspended Job that is not to be resumed: when it was cancelled, RFC 3339."""
VERSION_ANNOTATION = "lorajob.dev/version"
"""The version of the command line that submitted the run."""

SPEC_MAX_BYTES = 128 * 1024
PROGRESS_MAX_BYTES = 1024
PROGRESS_EVERY_SECONDS = 60.0
"""A pod that lives says so at least this often, also while a step or an evaluation takes long: much older is stale."""
_LONGEST_SECONDS = 2.0**37
"""4,000 years: a time within them is one to a calendar too."""
TERMINATION_MESSAGE_MAX_BYTES = 4096
"""What the kubelet keeps of a termination message."""

CONTAINER = "main"
SPEC_FILE = "/etc/lorajob/run/spec.json"
DATA_FOLDER = "/etc/lorajob/data"
"""Where the run's ConfigMap with a small dataset is mounted; files there may be compressed with gzip."""
CACHE_FOLDER = "/cache"
WORK_FOLDER = "/work"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"

COORDINATOR_PORT = 29401
"""Where the supervisor of node 0 tells those of the other nodes when to start and to end."""
RENDEZVOUS_PORT = 29400
"""Where torchrun's processes of all nodes meet."""

JOB_VARIABLE = "LORAJOB_JOB"
"""Name of the Job: that it is set is how the runtime knows that it runs in a cluster."""
NAMESPACE_VARIABLE = "LORAJOB_NAMESPACE"
POD_VARIABLE = "LORAJOB_POD"
JOB_UID_VARIABLE = "LORAJOB_JOB_UID"
"""The Job's uid. The nodes of a run show it one another: only who may see its pods can know it."""
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""Where the Job controller writes it, on every pod."""
NODE_VARIABLE = "JOB_COMPLETION_INDEX"
"""Which of the run's nodes this is, from 0; set by the Job controller."""

GRACE_VARIABLE = "LORAJOB_GRACE_SECONDS"
"""The pod's grace period: how long after SIGTERM the kubelet kills it."""

REMOTE_CODE_VARIABLE = "LORAJOB_TRUST_REMOTE_CODE"
"""true: the platform lets runs execute code of model repositories, if they ask for it too."""

PHASES = {"fetch": "Downloading", "data": "Preparing", "train": "Training", "publish": "Publishing"}
"""Phase of the event log -> phase that a user sees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminationMessage:
    """How a pod ended, as its termination message: the class (errors.py) and what a person needs to know."""

    exit_code: int
    failure: str
    """Name of the class; "succeeded" too."""
    message: str
    hint: str = ""

    def dumps(self, limit_bytes: int = TERMINATION_MESSAGE_MAX_BYTES) -> str:
        """JSON of at most `limit_bytes` bytes: a message that is too long loses its end."""
        return _dumps_within(self, limit_bytes, "message")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is, as the annotation on its Job. Times are Unix seconds; None stands for not known yet."""

    pod: str
    """The pod that says so: what another pod of the Job said is out of date."""
    attempt: int
    time: float
    phase: str
    """A key of PHASES, or "end"."""
    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    checkpoint: int | None = None
    """Step of the last checkpoint that is in storage."""
    alive: float | None = None
    """While training: when its processes last gave a sign of life. `time` is the supervisor's word alone."""
    note: str = ""
    """What the phase is busy with or waits for, for a person: how much of the weights is there, for instance."""
    exit_code: int | None = None
    failure: str | None = None
    message: str = ""
    hint: str = ""

    def dumps(self, limit_bytes: int = PROGRESS_MAX_BYTES) -> str:
        """JSON of at most `limit_bytes` bytes: a message that is too long loses its end."""
        return _dumps_within(self, limit_bytes, "message", "note", "hint")


def read_termination_message(text: str) -> TerminationMessage | None:
    """The message of a pod; None for one that the runtime did not write (a log's tail, the container runtime's own)."""
    return _loads(TerminationMessage, text)


def read_progress(text: str) -> Progress | None:
    """The annotation of a Job; None where there is none or it is not ours, as one of a time that no clock can show."""
    report = _loads(Progress, text)
    times = () if report is None else (report.time, report.alive or 0.0, report.seconds_left or 0.0)
    return report if all(abs(each) < _LONGEST_SECONDS for each in times) else None


def service_host(job: str, node: int) -> str:
    """DNS name of a node's pod in its namespace: `<job>-<node>.<job>`, by the Job's headless Service."""
    return f"{job}-{node}.{job}"


def _dumps_within(value: Any, limit_bytes: int, *shortened: str) -> str:
    """The value as JSON; the fields `shortened` lose their ends, one after another, until it fits."""
    for name in shortened:
        if _size(value) <= limit_bytes:
            break
        cut = functools.partial(_cut, value, name)
        # escapes make JSON longer than its text, so what fits is found by trying
        kept = bisect.bisect_right(range(len(getattr(value, name))), limit_bytes, key=lambda length: _size(cut(length)))
        value = cut(max(0, kept - 1))
    return _dumps(value)


def _cut(value: Any, name: str, length: int) -> Any:
    """The value with only the first `length` characters of one field."""
    whole: str = getattr(value, name)
    return dataclasses.replace(value, **{name: whole[:length] + "…" if length else ""})


def _size(value: Any) -> int:
    return len(_dumps(value).encode())


def _dumps(value: Any) -> str:
    return json.dumps(schema.encode(value, defaults=False), ensure_ascii=False, separators=(",", ":"))


def _loads(cls: type[T], text: str) -> T | None:
    known = {schema.camel(name) for name in schema.hints(cls)}
    try:
        values = json.loads(text)
        # a newer runtime may say more than this side knows
        return schema.decode(cls, {key: value for key, value in values.items() if key in known})
    except (ValueError, AttributeError, ConfigError):
        return None
