"""How a dataset gets from this machine into a cluster: looked at first, then in a ConfigMap, or in S3 by its hash."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorajob.manifest import DATA_MAX_BYTES, DataFile
from lorajob_runtime.data.faults import refuse_unusable
from lorajob_runtime.data.forms import detect
from lorajob_runtime.data.read import csv_lines, read
from lorajob_runtime.data.select import select
from lorajob_runtime.exits import DataError
from lorajob_runtime.layout import DATA_PREFIX
from lorajob_runtime.pod import CACHE_FOLDER
from lorajob_runtime.spec import DataSpec

if TYPE_CHECKING:
    from lorajob_runtime.store import Store

LOOK_BYTES = 64 << 20
"""Files up to this size are read through before anything is created; of larger ones only that they can be read."""

_STEM_LENGTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalData:
    """A dataset file on this machine, as looked at. `rows` and `verdict` are None where looking would take long."""

    path: Path
    size_bytes: int
    sha256: str
    rows: int | None = None
    verdict: str | None = None

    def packed(self) -> DataFile | None:
        """The file for a ConfigMap, compressed where that is smaller; None when it is too large. Raises DataError."""
        if self.size_bytes > LOOK_BYTES:
            return None
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        name = plain_name(self.path)
        # no time in it: the same file makes the same manifest
        smaller = gzip.compress(content, mtime=0)
        if len(smaller) < len(content):
            name, content = f"{name}.gz", smaller
        return DataFile(name=name, content=content) if len(content) <= DATA_MAX_BYTES else None

    @property
    def key(self) -> str:
        """Where the file lies in storage, below DATA_PREFIX: the same content is there once."""
        return f"{self.sha256}/{plain_name(self.path)}"

    def address(self, storage_uri: str) -> str:
        """The address of the file in storage, for `data.source`."""
        return f"{storage_uri.rstrip('/')}/{DATA_PREFIX}/{self.key}"


def plain_name(path: Path) -> str:
    """A file's name in letters that any key may have; its ending, which says what kind of file it is, stays."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:_STEM_LENGTH]
    return (stem or "data") + path.suffix.lower()


def is_local(data: DataSpec) -> bool:
    """Whether a spec names a file on this machine: not one in storage, nor one in the cluster's cache."""
    if data.source is None or data.source.startswith("s3://"):
        return False
    return not data.source.startswith(f"{CACHE_FOLDER}/") or Path(data.source).exists()


def is_missing(data: DataSpec) -> bool:
    """Whether a spec names a file on this machine that is not there."""
    return is_local(data) and not os.path.exists(os.path.expanduser(data.source or ""))


def is_sent(local: LocalData, store: Store) -> bool:
    """Whether storage has the file; `store` is that of DATA_PREFIX. Raises what the store raises."""
    return any(entry.size == local.size_bytes for entry in store.list(local.key))


def look(data: DataSpec) -> LocalData:
    """The file that `data.source` names, after the checks that need none of the libraries that train.

    Raises DataError when it is missing, unreadable, empty, broken, of no known form, or has no row to train on.
    """
    path = Path(os.path.expanduser(data.source or ""))
    try:
        size = path.stat().st_size if path.is_file() else 0
        kind = path.suffix.lower()
        if kind == ".parquet":
            _refuse_what_is_no_parquet(path)
            return LocalData(path=path, size_bytes=size, sha256=_sha256(path))
        if size > LOOK_BYTES:
            return LocalData(path=path, size_bytes=size, sha256=_sha256(path))
        if kind == ".csv":
            rows = _csv_rows(path)
            sha256 = _sha256(path)
        else:
            source = read(path)
            rows, sha256 = source.rows, source.sha256
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    selection = select(len(rows), data.rows, data.eval_rows)
    form = detect(rows, data)
    refuse_unusable(rows, form, selection, data.max_dropped, path)
    return LocalData(path=path, size_bytes=size, sha256=sha256, rows=len(rows), verdict=form.verdict)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_what_is_no_parquet(path: Path) -> None:
    with path.open("rb") as file:
        begins = file.read(4)
        file.seek(-min(4, file.seek(0, os.SEEK_END)), os.SEEK_END)
        ends = file.read(4)
    if not begins:
        raise DataError(f"{path} is empty")
    if begins != b"PAR1" or ends != b"PAR1":
        raise DataError(f"{path} is not Parquet, or not whole: such a file begins and ends with PAR1")


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as text; a line that ends early has nothing in its last columns."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if not text.strip():
            raise DataError(f"{path} is empty")
        lines = csv_lines(text)
        header = next(lines)
        rows = [dict(zip_longest(header, line[: len(header)], fillvalue="")) for line in lines]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as csv: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice: give one of them another name")
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows
