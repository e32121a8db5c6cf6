"""What storage can do: the protocol that S3 and a plain folder have in common, and the keys that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lorajob_runtime.contract.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file: its key below the run's prefix and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Keys:
    """What opens storage. Not shown: it must get into no log."""

    access_key: str
    secret_key: str
    session_token: str | None = None


class Store(Protocol):
    """The files of one run under `<uri>/<name>/`. A key is a relative path with `/`; a put replaces as a whole.

    Every method raises StorageError when storage does not answer or has no room, CredentialsError when it refuses the
    caller, and ConfigError when what it is asked for cannot be right (no such bucket, a key that leaves the prefix).
    """

    uri: str
    """The address of the run's files, without a slash at the end."""

    def check(self, *, patience_seconds: float) -> None:
        """Proves that files can be written. Storage that does not answer is asked again for `patience_seconds`."""

    def put(self, key: str, path: Path) -> None:
        """Stores a file that nothing writes to any more."""

    def put_bytes(self, key: str, data: bytes) -> None: ...

    def get(self, key: str, path: Path) -> None:
        """Writes a stored file to `path`, whose folder exists."""

    def get_bytes(self, key: str) -> bytes | None:
        """The content of a small file, or None when it is not there."""

    def list(self, prefix: str = "") -> list[Entry]:
        """Every file whose key is `prefix` or below it, in the order of their keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """Removes files; one that is not there is as good as removed."""


def is_s3(uri: str) -> bool:
    """Whether an address is one of S3."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b/` -> ("bucket", "a/b"). Raises ConfigError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"{uri!r} names no bucket: it must be like s3://bucket/prefix")
    if prefix:
        check_key(prefix)
    return bucket, prefix


def check_key(key: str) -> str:
    """The key itself. Raises ConfigError for one that is empty, absolute, or could leave the prefix it is put under."""
    parts = key.split("/")
    if any(part in ("", ".", "..") or _UNSAFE.search(part) for part in parts):
        raise ConfigError(f"{key!r} cannot be a key in storage: its parts must be plain names")
    return key


def is_key(key: str) -> bool:
    """Whether something stored can be a file of a run."""
    try:
        check_key(key)
    except ConfigError:
        return False
    return True


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
