"""Stores files that grow in storage that cannot append: new content becomes a part, and no byte is uploaded often.

    events.jsonl                                     the file as it was when it was last consolidated
    events.jsonl.parts/000000012345-90a1b2c3d4e5f607 what comes after its first 12345 bytes, whose SHA-256 begins so

The hash ties a part to what is before it: parts of another attempt, or left behind when a writer was cut off, are never
taken for a continuation. Sixteen parts become one, sixteen of those another: a long run leaves tens of them, and each
byte is uploaded a few times whatever the run's length. At its end a file is whole and its parts are gone. A file that
ends with .gz is compressed, part for part; offsets and hashes are those of its content.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract.errors import CredentialsError
from lorajob_runtime.contract.layout import part_key, parts_of
from lorajob_runtime.contract.plain_files import open_plain, path_of
from lorajob_runtime.storage.store import Store

_FAN = 16
_PART_BYTES = 8 << 20
_LARGEST_JOINED = 64 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Part:
    key: str
    offset: int
    level: int


class GrowingFile:
    """The writer of one growing file. Raises what the store raises, OSError, and NotPlainError."""

    def __init__(
        self, store: Store, key: str, path: Path, *, whole_lines: bool = False, below: Path | None = None
    ) -> None:
        """`whole_lines`: a torn last line waits. What an earlier attempt left of the file is replaced by this one's.

        `below` as for `open_plain`.
        """
        self._store = store
        self._key = key
        self._path = path
        self._below = below
        self._whole_lines = whole_lines
        self._length = 0
        self._sha256 = hashlib.sha256()
        self._parts: list[_Part] = []
        self._is_new = False
        self._was_whole = False
        self._is_unsure = False

    def add(self) -> None:
        """Stores what came since the last call."""
        if self._is_unsure:
            # a part has to follow what is there, and that may be the old file or the new one
            self.consolidate()
        while data := self._new():
            part = _Part(part_key(self._key, self._length, self._sha256.hexdigest()), self._length, 0)
            self._store.put_bytes(part.key, self._packed(data))
            self._parts.append(part)
            self._advance(data)
            self._is_new = True
            self._join()

    def consolidate(self) -> None:
        """Stores the whole file as one and removes its parts: at the end, and where another attempt's may be there."""
        if self._new() or self._is_new or self._is_unsure or not self._was_whole:
            self._is_unsure = True
            self._put_whole()
            # later parts must not be joined with earlier ones, even where those cannot be removed now
            self._parts, self._is_new, self._was_whole, self._is_unsure = [], False, True, False
        self._remove([entry.key for entry in self._store.list(parts_of(self._key))])

    def _put_whole(self) -> None:
        while data := self._new():
            self._advance(data)
        if not self._key.endswith(".gz"):
            self._store.put_bytes(self._key, self._read(0, self._length))
            return
        # without a name, so that nothing can take its place
        with tempfile.TemporaryFile(dir=self._path.parent, prefix=".packed-") as packed:
            with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as file:
                for begin in range(0, self._length, _CHUNK_BYTES):
                    file.write(self._read(begin, min(begin + _CHUNK_BYTES, self._length)))
            packed.flush()
            self._store.put(self._key, path_of(packed))

    def _new(self) -> bytes:
        data = self._read(self._length, self._length + _PART_BYTES)
        # the files stored here have no line longer than a part
        return data[: data.rfind(b"\n") + 1] if self._whole_lines and len(data) < _PART_BYTES else data

    def _read(self, begin: int, end: int) -> bytes:
        with suppress(FileNotFoundError), open_plain(self._path, below=self._below) as file:
            file.seek(begin)
            return file.read(end - begin)
        return b""

    def _advance(self, data: bytes) -> None:
        self._length += len(data)
        self._sha256.update(data)

    def _join(self) -> None:
        """Puts many small parts in the place of the first of them.

        Before the others go, so that they are never missed; one that stays after a failure is passed over.
        """
        while len(last := self._alike()) >= _FAN and self._length - last[0].offset <= _LARGEST_JOINED:
            self._store.put_bytes(last[0].key, self._packed(self._read(last[0].offset, self._length)))
            self._parts[-len(last) :] = [_Part(last[0].key, last[0].offset, last[0].level + 1)]
            self._remove([part.key for part in last[1:]])

    def _alike(self) -> list[_Part]:
        """The last parts, as far back as they are of one level."""
        back = itertools.takewhile(lambda part: part.level == self._parts[-1].level, reversed(self._parts))
        return list(back)[::-1]

    def _remove(self, keys: list[str]) -> None:
        # a leftover part is ignored by readers, and some buckets refuse every deletion
        with suppress(CredentialsError):
            self._store.delete(keys)

    def _packed(self, data: bytes) -> bytes:
        return gzip.compress(data, mtime=0) if self._key.endswith(".gz") else data


def read(store: Store, key: str) -> bytes:
    """All there is of a growing file; empty when there is none. Raises what the store raises, zlib.error."""
    return b"".join(pieces(store, key))


def pieces(store: Store, key: str) -> Iterator[bytes]:
    """All there is of a growing file, in pieces of at most a mebibyte or as they are stored, never all at once."""
    length, sha256 = 0, hashlib.sha256()
    # a file that was never consolidated begins with a part
    stored = store.get_bytes(key) or store.get_bytes(part_key(key, 0, sha256.hexdigest()))
    while stored:
        for piece in _unpacked(stored) if key.endswith(".gz") else [stored]:
            length += len(piece)
            sha256.update(piece)
            yield piece
        stored = store.get_bytes(part_key(key, length, sha256.hexdigest()))


def _unpacked(data: bytes) -> Iterator[bytes]:
    """The content of gzip data of one or several members."""
    while data:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        piece = member.decompress(data, _CHUNK_BYTES)
        while piece or member.unconsumed_tail:
            yield piece
            piece = member.decompress(member.unconsumed_tail, _CHUNK_BYTES)
        if not member.eof:
            raise zlib.error("the data ends early")
        data = member.unused_data
