"""Explains why training processes ended: from their exit status, the causes that they wrote down, and their logs."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import FailureClass, FullDiskError, LorajobError, OutOfMemoryError, PeerError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import NotPlainError, open_plain, read_plain

_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|gloo|nccl|process ?group|watchdog", re.IGNORECASE
)
_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a worker ended, as it wrote down itself."""

    rank: int
    failure: FailureClass
    message: str
    hint: str | None


def explain(
    *,
    exit_status: int,
    causes: Sequence[Cause],
    workers: int,
    nodes: int = 1,
    memory_kills: int,
    last_line: str,
    full_disk: str | None = None,
) -> LorajobError | None:
    """The error that training ended with, None for success.

    `exit_status` is the launcher's, negative for a signal; `full_disk` a folder that takes no more. Of several causes
    the one that explains the others counts: ranks that lost a peer only tell that it is gone. A rank that was killed
    leaves no cause; where every rank here left one and lost a peer, that peer is on another of the `nodes`.
    """
    if exit_status == 0:
        return None
    cause = min(causes, key=_distance, default=None)
    # torchrun, which hides how its workers ended, also starts a single one where there are several nodes
    by_torchrun = workers > 1 or nodes > 1
    killed = exit_status == -signal.SIGKILL or (by_torchrun and len(causes) < workers)
    if memory_kills > 0 and killed and (cause is None or cause.failure is errors.UNEXPECTED):
        return OutOfMemoryError(
            "a training process was killed: the memory of this machine or container was used up",
            hint=errors.HOST_MEMORY_HINT,
        )
    says_so = cause is not None and cause.failure is errors.UNEXPECTED and _NO_ROOM.search(cause.message) is not None
    if full_disk is not None and (cause is None or says_so):
        return FullDiskError(f"cannot write {full_disk}: {os.strerror(errno.ENOSPC)}")
    if cause is not None and says_so:
        return FullDiskError(f"training could not write: {cause.message}")
    if nodes > 1 and len(causes) == workers and all(_is_echo(each) for each in causes):
        return PeerError(f"a process on another node was lost: {causes[0].message}")
    if cause is not None:
        return errors.error_named(cause.failure.name, cause.message, hint=cause.hint)
    how = f"signal {-exit_status}" if exit_status < 0 else f"exit code {exit_status}"
    log = f"the last line of its log is: {last_line}" if last_line else "its log is empty"
    return LorajobError(f"training ended with {how} and wrote down no cause; {log}")


def _distance(cause: Cause) -> tuple[int, int]:
    """How far a cause is from what started it all; among equals the lowest rank speaks."""
    if cause.failure is errors.UNEXPECTED:
        return (3 if _is_echo(cause) else 2), cause.rank
    return (1 if cause.failure is errors.STOPPED else 0), cause.rank


def _is_echo(cause: Cause) -> bool:
    """Whether a cause only tells that another process is gone."""
    return cause.failure is errors.UNEXPECTED and _LOST_PEER.search(cause.message) is not None


def read_causes(folder: RunFolder, ranks: Sequence[int]) -> list[Cause]:
    """What the workers of these ranks wrote down as they ended."""
    causes = []
    for rank in ranks:
        try:
            values = json.loads(read_plain(folder.cause(rank)))
            failure = errors.from_code(int(values["exit_code"]))
            causes.append(Cause(rank=rank, failure=failure, message=values["message"], hint=values.get("hint")))
        except (OSError, ValueError, KeyError, TypeError, NotPlainError):
            # a worker that was killed while it wrote has left no cause
            continue
    return causes


def is_full(folder: RunFolder) -> bool:
    """Whether the disk takes no more: a worker that ends for that reason cannot write it down."""
    probe = folder.work / "room"
    try:
        probe.write_bytes(bytes(1 << 16))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return False


def last_log_line(logs: Sequence[Path], *, below: Path) -> str:
    """The last line with a word in it, of the first log that has one."""
    for log in logs:
        try:
            with open_plain(log, below=below) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except (OSError, NotPlainError):
            continue
        for line in reversed(lines):
            if re.search(r"\w", line):
                return line.strip()[:300]
    return ""
