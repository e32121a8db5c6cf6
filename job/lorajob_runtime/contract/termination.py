"""How a process's end is put into words: any exception as an error with a class, and that as last words. Pure."""

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
from lorajob_runtime.contract.kubernetes import LastWords


def as_error(caught: BaseException, *, forced: bool, disk: str) -> LorajobError:
    """Whatever ended a run, as an error that has a class. `forced`: by a second Ctrl-C.

    `disk` is what is full when the system does not say.
    """
    if isinstance(caught, KeyboardInterrupt):
        if forced:
            return InterruptedByUserError("ended at once; finished checkpoints are kept and uploaded at the next start")
        return StoppedError("stopped before a step of training was made")
    return classed(caught, disk=disk)


def classed(caught: BaseException, *, disk: str) -> LorajobError:
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


def end_values(error: LorajobError | None, message: str, *, is_in_pod: bool = False) -> dict[str, object]:
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


def words_of(error: LorajobError | None, message: str = "") -> LastWords:
    """The last words of an ending: those of `error`, or of success with a message."""
    if error is None:
        return LastWords(exit_code=0, failure=errors.SUCCEEDED.name, message=message)
    return LastWords(exit_code=error.failure.code, failure=error.failure.name, message=error.message, hint=error.hint)


def error_of(words: LastWords) -> LorajobError:
    """The error that last words tell of."""
    return errors.error_named(words.failure, words.message, hint=words.hint)
