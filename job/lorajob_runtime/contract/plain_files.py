"""Opens what training has written, for a process that has keys: plain files alone, and no links on the way to them.

A model repository's own code runs in the training processes. Where their user may write it can put a link to a file
that it cannot open itself, or a pipe that nobody writes to. A hard link is a plain file: Landlock
(key_isolation.py) keeps those processes from making one in another folder, and a mounted Secret or /proc is another
file system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from lorajob_runtime.contract.errors import ModelError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHER_THINGS = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""What the system says of a link, of a link where a folder should be, and of a socket."""


class NotPlainError(ModelError):
    """Something else than a file lies where training writes files."""


def open_plain(path: Path, *, below: Path | None = None) -> BufferedReader:
    """Opens a file to read it. No folder between `below`, its own folder if None, and the file may be a link.

    Raises NotPlainError for what is not a plain file, at once for a pipe too; OSError as open does.
    """
    below = path.parent if below is None else below
    *folders, name = path.relative_to(below).parts
    try:
        place = os.open(below, _FOLDER)
        try:
            for each in folders:
                inner = os.open(each, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
                os.close(place)
                place = inner
            handle = os.open(name, _FILE, dir_fd=place)
        finally:
            os.close(place)
    except OSError as error:
        if error.errno in _OTHER_THINGS:
            raise _not_plain(path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_plain(path)
    return os.fdopen(handle, "rb")


def read_plain(path: Path) -> bytes:
    """The content of a file; raises as `open_plain` does."""
    with open_plain(path) as file:
        return file.read()


@contextmanager
def pinned(path: Path, *, below: Path) -> Iterator[Path]:
    """Another path of a file while the block lasts, which leads there whatever is put in the place of the first one.

    Raises as `open_plain` does.
    """
    with open_plain(path, below=below) as file:
        yield path_of(file)


def path_of(file: IO[bytes]) -> Path:
    """A path of an open file, for this process alone."""
    return Path(f"/proc/self/fd/{file.fileno()}")


def _not_plain(path: Path) -> NotPlainError:
    return NotPlainError(
        f"{path} is not a regular file, or a link leads to it: it is neither read nor uploaded",
        hint="lorajob makes none there: look at what the code of the model's repository does",
    )
