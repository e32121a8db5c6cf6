"""Stores results in a plain folder: by hard links where the file system has them, copies elsewhere, each put atomic."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lorajob_runtime.contract.errors import ConfigError, FullDiskError, LorajobError, StorageError
from lorajob_runtime.storage.store import Entry, check_key
from lorajob_runtime.system import atomic

_PROBE = ".lorajob-check"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.ENOENT)
"""The last of a file without a name."""


class FolderStore:
    """The store of one run in a folder of this machine, or of a volume mounted here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def check(self, *, patience_seconds: float) -> None:
        """Writes a probe and removes it. A folder answers at once, so patience changes nothing."""
        del patience_seconds
        with _errors(self._root):
            self.put_bytes(_PROBE, b"")
            (self._root / _PROBE).unlink()

    def put(self, key: str, path: Path) -> None:
        with self._replacing(key) as draft:
            try:
                _link(path, draft)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                _copy(path, draft)

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._replacing(key) as draft:
            draft.write_bytes(data)

    def get(self, key: str, path: Path) -> None:
        source = self._path(key)
        with _errors(source):
            _copy(source, path)

    def get_bytes(self, key: str) -> bytes | None:
        path = self._path(key)
        with _errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> list[Entry]:
        top = self._path(prefix) if prefix else self._root
        with _errors(top):
            files = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
            entries = [
                Entry(path.relative_to(self._root).as_posix(), path.stat().st_size)
                for path in files
                if not (path.name.startswith(".") and path.name.endswith(atomic.DRAFT))
            ]
        return sorted(entries, key=lambda entry: entry.key)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with _errors(path):
                path.unlink(missing_ok=True)
            if path.parent != self._root:
                # S3 has no empty folders either
                with suppress(OSError):
                    path.parent.rmdir()

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key)
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise ConfigError(f"{path} leads out of {self._root}: a link in it points elsewhere")
        return path

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        """A draft of the key's file, which takes its place when the block ends well."""
        target = self._path(key)
        with _errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing_file(target) as draft:
                yield draft


def _link(source: Path, target: Path) -> None:
    """A second name for the file that `source` leads to, also by a link such as those in /proc/self/fd."""
    folder = os.open(target.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        # with a folder given Python calls linkat, which follows links; link does not
        os.link(source, target.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 4 << 20)
        writer.flush()
        os.fsync(writer.fileno())


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours, each naming the path."""
    try:
        yield
    except OSError as error:
        raise _translate(error, Path(error.filename) if isinstance(error.filename, str) else path) from error


def _translate(error: OSError, path: Path) -> LorajobError:
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return FullDiskError(f"cannot write {path}: {reason}")
    if error.errno in _NOT_WRITABLE:
        return ConfigError(f"cannot write to {path}: {reason}", hint="choose a storage folder that can be written")
    return StorageError(f"cannot read or write {path}: {reason}")
