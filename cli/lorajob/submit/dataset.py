"""Brings a dataset from this machine to a cluster: inspects it, then puts it into a ConfigMap or into S3."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorajob.submit.manifest import DATA_MAX_BYTES, DataFile
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.kubernetes import CACHE_FOLDER
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.files import ending_of, located, stamp
from lorajob_runtime.data.rows.issues import refuse_unusable
from lorajob_runtime.data.rows.load import load

if TYPE_CHECKING:
    from lorajob_runtime.storage.store import Store

LOOK_BYTES = 64 << 20
"""Files up to this size are read through before anything is created; of larger ones only that they can be read."""

PACKED_SHRINKS = 8
"""How much longer the text of a compressed file is taken to be, where that decides whether it is read through."""

_STEM_LENGTH = 100
_PIECE_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalData:
    """A dataset file on this machine, as looked at. `sha256` is of the file as it lies.

    `rows`, `verdict` and `text_bytes`, its size unpacked, are None where looking would take long.
    """

    path: Path
    size_bytes: int
    sha256: str
    text_bytes: int | None = None
    rows: int | None = None
    verdict: str | None = None

    def as_config_map(self) -> DataFile | None:
        """The file for a ConfigMap, compressed where that is smaller; None when it is too large. Raises DataError."""
        if self.size_bytes > LOOK_BYTES:
            return None
        name = plain_name(self.path)
        smaller = None if name.endswith(".gz") else compressed(_pieces(self.path), DATA_MAX_BYTES)
        if smaller is not None and len(smaller) < self.size_bytes:
            return DataFile(name=f"{name}.gz", content=smaller)
        if self.size_bytes > DATA_MAX_BYTES:
            return None
        return DataFile(name=name, content=b"".join(_pieces(self.path)))

    @property
    def key(self) -> str:
        """Where the file lies in storage, below DATA_PREFIX: the same content is there once."""
        return layout.data_key(self.sha256, plain_name(self.path))

    def address(self, storage_uri: str) -> str:
        """The address of the file in storage, for `data.source`."""
        return layout.data_address(storage_uri, self.key)


def compressed(pieces: Iterable[bytes], limit: int) -> bytes | None:
    """A gzip file of the pieces, the same each time; None when it is longer than `limit` bytes.

    Pieces beyond that are not asked for, so a large file is not compressed whole to see whether it fits.
    """
    # + 16: with the frame of a gzip file, which holds no time
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    made = bytearray()
    for piece in pieces:
        made += compressor.compress(piece)
        if len(made) > limit:
            return None
    made += compressor.flush()
    return bytes(made) if len(made) <= limit else None


def plain_name(path: Path) -> str:
    """A file's name in letters that any key may have; its ending, which says what kind of file it is, stays."""
    ending = ending_of(path)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name[: len(path.name) - len(ending)]).strip("-_")[:_STEM_LENGTH]
    return (stem or "data") + ending


def is_local(data: DataSpec) -> bool:
    """Whether a spec names a file on this machine: not one in storage, nor one in the cluster's cache."""
    if data.source is None or data.source.startswith("s3://"):
        return False
    return not data.source.startswith(f"{CACHE_FOLDER}/") or Path(data.source).exists()


def is_missing(data: DataSpec) -> bool:
    """Whether a spec names a file on this machine that is not there."""
    return is_local(data) and not os.path.exists(os.path.expanduser(data.source or ""))


def upload(local: LocalData, store: Store) -> bool:
    """Puts the file into storage and returns True; one that is there stays as it is.

    `store` is that of DATA_PREFIX. Raises what the store raises.
    """
    if any(entry.size == local.size_bytes for entry in store.list(local.key)):
        return False
    store.put(local.key, local.path)
    return True


def inspect(data: DataSpec) -> LocalData:
    """The file that `data.source` names, after the checks that need none of the libraries that train.

    Raises DataError when it is missing, unreadable, empty, broken, of no known form, or has no row to train on.
    """
    path = Path(os.path.expanduser(data.source or ""))
    file = located(path)
    size = stamp(file).size
    limit = LOOK_BYTES // PACKED_SHRINKS if file.is_packed else LOOK_BYTES
    if file.kind == "parquet" or size > limit:
        return LocalData(path=path, size_bytes=size, sha256=_sha256(path))
    loaded = load(data)
    refuse_unusable(loaded, data.max_dropped)
    source = loaded.source
    return LocalData(
        path=path,
        size_bytes=size,
        text_bytes=source.size_bytes,
        sha256=_sha256(path) if file.is_packed else source.sha256,
        rows=len(source),
        verdict=loaded.form.verdict,
    )


def _pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, a piece at a time. Raises DataError."""
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
