"""Dataset files as bytes: which kind one is, what it really holds, and its content, unpacked where it is compressed.

Standard library only.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from lorajob_runtime.contract import file_signatures
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.text import truncate

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind = Literal["json", "csv", "parquet"]

ROW_MAX = 1 << 28
"""Characters that one row may have, far more than any is trained on: what a file can make a process hold."""

_KINDS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".ndjson": "json",
    ".tsv": "csv",
}
_LISTED = f"{', '.join(_KINDS)}, each also compressed as .gz"
_PATH_HINT = "correct data.source, the path given with --data"
_CHUNK = 1 << 20
_UNPACKED_MAX = 1 << 32
"""Bytes that a compressed Parquet file, which cannot be read from its beginning to its end, may have unpacked."""


class FileError(DataError):
    """A file cannot be read as a dataset. The message says what would be right: looking again would tell no more."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataPath:
    """A dataset file by its name: `ending` is that of what it holds, .json of rows.json.gz."""

    path: Path
    ending: str
    is_packed: bool

    @property
    def kind(self) -> Kind:
        return _KINDS[self.ending]

    def __str__(self) -> str:
        return str(self.path)


def ending_of(path: Path) -> str:
    """The ending that says what a file is, in small letters: .json, or .json.gz where it is compressed."""
    packed = ".gz" if path.suffix.lower() == ".gz" else ""
    return (Path(path.stem) if packed else path).suffix.lower() + packed


def located(path: Path) -> DataPath:
    """The dataset file at a path, looked at from outside and at its first bytes.

    Raises DataError when it is missing, a folder, of no kind that can be read, or not what its name says.
    """
    ending = ending_of(path).removesuffix(".gz")
    try:
        if path.is_dir():
            raise FileError(f"{path} is a folder: data.source must be a file, one of {_LISTED}", hint=_PATH_HINT)
        if not path.exists():
            raise FileError(f"there is no dataset at {truncate(path, 300)}", hint=_PATH_HINT)
        if ending not in _KINDS or not path.is_file():
            named = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
            fault = named if ending not in _KINDS else "is not a regular file"
            if path.is_file() and (said := file_signatures.stand_in(path)) is not None:
                raise FileError(f"{path} {said}")
            raise FileError(f"{path} {fault}: a dataset must be one of {_LISTED}", hint=_PATH_HINT)
    except OSError as error:
        raise FileError(f"cannot read {truncate(path, 300)}: {error.strerror}") from error
    file = DataPath(path=path, ending=ending, is_packed=path.suffix.lower() == ".gz")
    _refuse_impostor(file)
    return file


class Content(io.RawIOBase):
    """The bytes of a file as they are read, unpacked; hashed and counted on their way."""

    def __init__(self, file: DataPath) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._name = file
        raw = file_of(file)
        self._source: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if file.is_packed else raw
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._source.read(len(view))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FileError(f"{self._name} is not a complete gzip file: {error}") from error
        except OSError as error:
            raise FileError(f"cannot read {self._name}: {error.strerror}") from error
        view[: len(data)] = data
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._raw.close()
        super().close()


@contextmanager
def opened(file: DataPath) -> Iterator[tuple[io.BufferedReader[Content], Content]]:
    """A file's content to read from its beginning, and what counts and hashes it. Reading raises DataError."""
    with Content(file) as content, io.BufferedReader(content, _CHUNK) as reader:
        yield reader, content


def unpacked(file: DataPath) -> IO[bytes]:
    """A file's content to read at any place of it. Raises DataError."""
    import tempfile  # with its own imports a tenth of the time that a submit takes

    if not file.is_packed:
        return file_of(file)
    with ExitStack() as stack:
        try:
            target = stack.enter_context(tempfile.TemporaryFile())
            _unpack(file, target)
        except OSError as error:
            raise FileError(f"cannot unpack {file}: {error.strerror}") from error
        # the caller closes it
        stack.pop_all()
    return target


def _unpack(file: DataPath, target: IO[bytes]) -> None:
    with opened(file) as (reader, content):
        while chunk := reader.read(_CHUNK):
            if content.size > _UNPACKED_MAX:
                raise FileError(f"{file} has more than {_UNPACKED_MAX >> 30} GiB when unpacked: unpack it yourself")
            target.write(chunk)
    target.seek(0)


def hashed(file: DataPath) -> tuple[str, int]:
    """The SHA-256 of a file's content, unpacked, and its size in bytes. Raises DataError."""
    with opened(file) as (reader, content):
        while reader.read(_CHUNK):
            pass
        return content.digest.hexdigest(), content.size


class Stamp(NamedTuple):
    """What changes when a file does."""

    inode: int
    size: int
    modified_ns: int


def stamp(file: DataPath) -> Stamp:
    """The stamp of a file as it is now. Raises DataError."""
    try:
        found = os.stat(file.path)
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror}") from error
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def too_long(file: DataPath, line: int) -> FileError:
    """The error for a row that begins on a line and does not end for too long."""
    return FileError(f"{file} line {line} begins a row of more than {ROW_MAX >> 20} MiB, which is too long to train on")


def not_utf8(file: DataPath) -> FileError:
    """The error for a file that is text in another encoding, with the first line that shows it."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    line = 1
    with opened(file) as (reader, _):
        while chunk := reader.read(_CHUNK):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                line += len(re.findall(rb"\r\n?|\n", error.object[: error.start]))
                break
    return FileError(f"{file} line {line} is not UTF-8: save the file as UTF-8")


_ROWS_OF_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"')


def _refuse_impostor(file: DataPath) -> None:
    """Raises DataError for a file whose first bytes are those of something else than its name says."""
    if file.is_packed:
        with file_of(file) as raw:
            begins = raw.read(2)
        if begins and begins != b"\x1f\x8b":
            raise FileError(f"{file} is not compressed with gzip, though its name ends in .gz: rename or compress it")
    with opened(file) as (reader, _):
        head = reader.read(file_signatures.LOOK_BYTES)
    said = file_signatures.named(head)
    if file.is_packed and head.startswith(b"\x1f\x8b"):
        said = "is compressed with gzip twice: unpack it once"
    if said is None and file.kind != "parquet" and head.startswith(b"PAR1"):
        said = "is Parquet: give it a name that ends in .parquet"
    if said is None and file.kind == "csv" and _ROWS_OF_JSON.match(head):
        said = "is JSON: give it a name that ends in .json or .jsonl"
    if said is not None:
        raise FileError(f"{file} {said}")
    if file.kind == "parquet":
        _refuse_cut_parquet(file, head)


def _refuse_cut_parquet(file: DataPath, head: bytes) -> None:
    if not head:
        raise FileError(f"{file} is empty")
    ends = b"PAR1"
    if not file.is_packed:
        with file_of(file) as raw:
            raw.seek(-min(4, raw.seek(0, os.SEEK_END)), os.SEEK_END)
            ends = raw.read(4)
    if not head.startswith(b"PAR1") or ends != b"PAR1":
        raise FileError(f"{file} is not Parquet, or not complete: a Parquet file begins and ends with PAR1")


def file_of(file: DataPath) -> IO[bytes]:
    """The file itself, packed or not. Raises DataError."""
    try:
        return file.path.open("rb")
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror}") from error
