"""Turns any exception into an error with a class, and that into the pod's termination message. Pure."""

from __future__ import annotations

import errno

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import (
    STOPPED,
    SUCCEEDED,
    FullDiskError,
    InterruptedByUserError,
    LorajobError,
    OutOfMemoryError,
    StoppedError,
)
from lorajob_runtime.contract.kubernetes import TerminationMessage


def to_error(caught: BaseException, *, forced: bool, disk: str) -> LorajobError:
    """Whatever ended a run, as an error that has a class. `forced`: by a second Ctrl-C.

    `disk` is what is full when the system does not say.
    """
    if isinstance(caught, KeyboardInterrupt):
        if forced:
            return InterruptedByUserError("ended at once; finished checkpoints are kept and uploaded at the next start")
        return StoppedError("stopped before the first step of training")
    return classify(caught, disk=disk)


def classify(caught: BaseException, *, disk: str) -> LorajobError:
    """Any error but an interrupt as one that has a class."""
    if isinstance(caught, LorajobError):
        return caught
    if isinstance(caught, MemoryError):
        return OutOfMemoryError("the memory of this machine was used up", hint=errors.HOST_MEMORY_HINT)
    text = f"{type(caught).__name__}: {caught}"
    if isinstance(caught, OSError) and caught.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullDiskError(f"cannot write {caught.filename or disk}: {caught.strerror}")
    if "No space left on device" in text:
        return FullDiskError(f"cannot write {disk}: {text[:300]}")
    return LorajobError(text[:500])


_IN_POD = {
    STOPPED.name: "the run goes on from its last checkpoint in its next pod; `lorajob resume` or `lorajob retry` asks "
    "for one where it was suspended or cancelled",
}
"""What a person at a terminal would do is not what helps in a cluster."""


def end_event_values(error: LorajobError | None, message: str, *, is_in_pod: bool = False) -> dict[str, object]:
    """The values of the log's `end` event."""
    if error is None:
        return {"exit_code": SUCCEEDED.code, "class": SUCCEEDED.name, "message": message, "hint": ""}
    return {
        "exit_code": error.failure.code,
        "class": error.failure.name,
        "message": error.message,
        "hint": _IN_POD.get(error.failure.name, error.hint)
        if is_in_pod and error.hint == error.failure.hint
        else error.hint,
    }


def to_termination_message(error: LorajobError | None, message: str = "") -> TerminationMessage:
    """The termination message of an end: of `error`, or of success with a message."""
    if error is None:
        return TerminationMessage(exit_code=0, failure=errors.SUCCEEDED.name, message=message)
    return TerminationMessage(
        exit_code=error.failure.code, failure=error.failure.name, message=error.message, hint=error.hint
    )


def from_termination_message(termination: TerminationMessage) -> LorajobError:
    """The error that a termination message tells of."""
    return errors.error_named(termination.failure, termination.message, hint=termination.hint)
