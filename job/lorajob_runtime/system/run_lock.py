"""A run's folder has one writer. The kernel holds the lock, so that of a dead process's only its name remains."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorajob_runtime.contract.errors import ConfigError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What flock says on a mount that knows no locks."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds the lock of a run's folder.

    Raises ConfigError when another process has it, whom it names, or the mount knows no locks; OSError for a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"cannot write to {path.parent}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"another process works on this run: {_holder(file.read())} holds {path}",
                hint="wait for it or stop it, or give this run another name",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise ConfigError(
                f"{path} cannot be locked: {error.strerror}",
                hint="let storage.uri, or LORAJOB_WORK if that is in S3, name a folder on a file system with locks",
            ) from error
        # never removed: whoever opened it before would lock a file that nobody else sees
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        values = json.loads(text)
        return f"process {values['pid']} on {values['host']}"
    except (ValueError, KeyError, TypeError):
        return "a process that gave no name"
