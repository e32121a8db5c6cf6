"""Failure classes: exit code, name, whether a retry can help, and the hint a user reads. And the one tree of errors.

The codes are a contract: the Job's failure policy, `status` and scripts read them. An error is raised where it is
known and becomes text and an exit code in one place a side (the supervisor's and the command line's entry points).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureClass:
    """One class of ending. `final` means that running the same again cannot help."""

    code: int
    name: str
    final: bool
    hint: str


SUCCEEDED = FailureClass(code=0, name="succeeded", final=True, hint="")
UNEXPECTED = FailureClass(
    code=1, name="unexpected", final=False, hint="this is a fault of lorajob or of a library: report it with the log"
)
CONFIG = FailureClass(code=10, name="config", final=True, hint="correct the spec or the flag")
DATA = FailureClass(code=11, name="data", final=True, hint="run `lorajob data check` on the dataset")
MODEL = FailureClass(code=12, name="model", final=True, hint="run `lorajob models` for the names that are known")
CREDENTIALS = FailureClass(
    code=13, name="credentials", final=True, hint="check the key, its secret and what it may do on the bucket or hub"
)
OUT_OF_MEMORY = FailureClass(
    code=14,
    name="out-of-memory",
    final=True,
    hint="lower train.tokensPerMicroBatch, or ask for GPUs with more memory; under another name a run may also have a "
    "lower data.maxLength or train.gradientCheckpointing: true",
)
DIVERGED = FailureClass(
    code=15, name="diverged", final=True, hint="lower train.learningRate, or look at the rows of that step"
)
HUB = FailureClass(
    code=20, name="hub", final=False, hint="the model hub did not answer; a new attempt goes on from what came"
)
STORAGE = FailureClass(
    code=21,
    name="storage",
    final=False,
    hint="see whether storage answers and has room; the next start goes on from the last checkpoint",
)
STALLED = FailureClass(
    code=22,
    name="stalled",
    final=False,
    hint="no step was finished in time; a new attempt goes on from the last checkpoint",
)
PEER = FailureClass(
    code=23, name="peer", final=False, hint="another node of the run was lost; training goes on when it is back"
)
STOPPED = FailureClass(code=30, name="stopped", final=False, hint="run the same command again to go on from there")
INTERRUPTED = FailureClass(code=130, name="interrupted", final=True, hint="run the same command again to go on")

ALL = (
    SUCCEEDED,
    UNEXPECTED,
    CONFIG,
    DATA,
    MODEL,
    CREDENTIALS,
    OUT_OF_MEMORY,
    DIVERGED,
    HUB,
    STORAGE,
    STALLED,
    PEER,
    STOPPED,
    INTERRUPTED,
)
_BY_CODE = {failure.code: failure for failure in ALL}
_BY_NAME = {failure.name: failure for failure in ALL}


def from_code(code: int) -> FailureClass:
    """The class of an exit code; an unknown code is `unexpected`."""
    return _BY_CODE.get(code, UNEXPECTED)


def from_name(name: str) -> FailureClass:
    """The class of a name as written in the event log; an unknown name is `unexpected`."""
    return _BY_NAME.get(name, UNEXPECTED)


class LorajobError(Exception):
    """Base of every error that ends a run with a class. `message` is one line: what, its value, what would be right."""

    failure: FailureClass = UNEXPECTED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = self.failure.hint if hint is None else hint


class ConfigError(LorajobError):
    """The spec, a flag or the platform asks for something wrong or impossible.

    `path` is the field that is wrong, like train.saveSteps; "" where it is none. The message names it.
    """

    failure = CONFIG

    def __init__(self, message: str, *, hint: str | None = None, path: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path

    def naming_it(self, name: str) -> str:
        """The message with another name for the field, as that of its flag."""
        return self.message.replace(self.path, name, 1) if self.path else self.message


class UnknownFieldError(ConfigError):
    """A field, or a version of all fields, that this version of lorajob does not know and a newer one may."""


class DataError(LorajobError):
    """The dataset is missing, unreadable, of no known form, or yields nothing to train on."""

    failure = DATA


class ModelError(LorajobError):
    """The model is unknown, incomplete, or cannot be trained as asked."""

    failure = MODEL


class CredentialsError(LorajobError):
    """A key is missing, wrong, or not allowed to do what is needed."""

    failure = CREDENTIALS


class OutOfMemoryError(LorajobError):
    """Device or host memory was not enough."""

    failure = OUT_OF_MEMORY


HOST_MEMORY_HINT = "ask for more with resources.memory, or lower train.batchSize or data.maxLength"
"""Where it was not a GPU's memory that was used up: more GPUs would not help."""


class DivergedError(LorajobError):
    """The loss or a gradient is not a finite number."""

    failure = DIVERGED


class HubError(LorajobError):
    """A model hub did not answer or broke off."""

    failure = HUB


class StorageError(LorajobError):
    """Artifact storage or the local disk did not take or give what it should."""

    failure = STORAGE


class FullDiskError(StorageError):
    """A disk has no room. Waiting does not make any."""

    def __init__(self, message: str, *, hint: str = "make room there and run the same command again") -> None:
        super().__init__(message, hint=hint)


class StalledError(LorajobError):
    """Training gave no sign of life for too long."""

    failure = STALLED


class PeerError(LorajobError):
    """Another node of the run ended or went away, so this one cannot go on."""

    failure = PEER


class StoppedError(LorajobError):
    """Training was asked to stop and did, with a checkpoint where a step had been made."""

    failure = STOPPED


class TakenOverError(StoppedError):
    """Another process writes to the run's storage now, since this one seemed to be lost."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="the run goes on there")


class InterruptedByUserError(LorajobError):
    """A second Ctrl-C: ended at once, from the last checkpoint on."""

    failure = INTERRUPTED


_ERRORS: dict[str, type[LorajobError]] = {
    error.failure.name: error
    for error in (
        ConfigError,
        DataError,
        ModelError,
        CredentialsError,
        OutOfMemoryError,
        DivergedError,
        HubError,
        StorageError,
        StalledError,
        PeerError,
        StoppedError,
        InterruptedByUserError,
    )
}


def error_named(name: str, message: str, *, hint: str | None) -> LorajobError:
    """What another process wrote down as its cause, to be raised again here; an unknown name is `unexpected`."""
    return _ERRORS.get(name, LorajobError)(message, hint=hint)
