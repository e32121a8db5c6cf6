"""Files and folders that are seen whole or not at all, and that a power cut does not take back.

What is written goes to a draft beside the target, `.NAME.new`, and onto the disk; then the draft gets the name.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT, _RETIRED = ".new", ".old"
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)
"""What file systems say that cannot flush a folder, or not for this user."""


def draft_of(path: Path) -> Path:
    """Where the new content of a file or folder is written."""
    return path.with_name(f".{path.name}{DRAFT}")


def replace_file(path: Path, content: bytes | str) -> None:
    """Writes a file: who reads it gets the old content or the new, never a part. Text is in UTF-8."""
    with replacing_file(path) as draft, draft.open("xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path for the block to write to; if the block ends well that file takes the place of `path`."""
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    try:
        yield draft
        sync(draft)
        draft.replace(path)
        _sync_folder(path.parent)
    finally:
        # renaming one link of a file onto another of the same file does nothing, and leaves both
        draft.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, may_exist: bool = True) -> Iterator[Path]:
    """An empty folder for the block to fill; if the block ends well it takes the place of `path`.

    Raises OSError for a folder that is there already and must not be.
    """
    draft = draft_of(path)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        if may_exist:
            replace_folder(draft, path)
        else:
            move_folder(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_folder(draft: Path, path: Path, *, retired: Path | None = None) -> None:
    """Gives a filled folder the place of another, whose old content is removed by way of `retired`.

    Raises OSError where that cannot be done; then the old content is still there.
    """
    retired = retired or path.with_name(f".{path.name}{_RETIRED}")
    shutil.rmtree(retired, ignore_errors=True)
    # before the old content goes: a full disk may show only now
    _sync_tree(draft)
    if not path.exists():
        _rename(draft, path)
        return
    path.rename(retired)
    try:
        _rename(draft, path)
    except OSError:
        retired.rename(path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def move_folder(draft: Path, path: Path) -> None:
    """Gives a filled folder its name, everything in it safely on the disk. Raises OSError if there is a filled one."""
    _sync_tree(draft)
    _rename(draft, path)


def remove_leftovers(folder: Path) -> None:
    """Removes the folders that a killed process left in `folder` when it was replacing others there."""
    for suffix in (DRAFT, _RETIRED):
        for path in folder.glob(f".*{suffix}"):
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file's content is on the disk; a link or a pipe has none of its own."""
    if stat.S_ISREG(path.lstat().st_mode):
        _sync(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _rename(draft: Path, path: Path) -> None:
    draft.rename(path)
    _sync_folder(path.parent)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        _sync_folder(Path(parent))


def _sync_folder(path: Path) -> None:
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
