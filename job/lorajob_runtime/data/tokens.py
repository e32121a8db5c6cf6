"""Token rows: a tokenised dataset as three flat arrays, in one memory-mapped safetensors file.

Needs numpy and safetensors only, because every training process imports it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
Offsets = NDArray[np.int64]

_PIECE = 1 << 20
_I32 = np.dtype("<i4")
_DTYPES: dict[str, np.dtype[Any]] = {"I32": _I32, "U8": np.dtype("u1"), "I64": np.dtype("<i8")}


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows end to end: `input_ids` int32 [T], `targets` bool [T], `offsets` int64 [rows + 1].

    A target is a token that carries loss, predicted from the one before it; so a row's first token is never one.
    """

    input_ids: Ids
    targets: Mask
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    @property
    def target_tokens(self) -> int:
        """How many tokens carry loss."""
        return int(np.count_nonzero(self.targets))

    def row(self, index: int) -> tuple[Ids, Mask]:
        """The tokens and targets of one row, as views."""
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.input_ids[start:stop], self.targets[start:stop]

    def save(self, path: Path) -> None:
        """Writes the arrays to `path`. Raises OSError."""
        save_file(
            {"input_ids": self.input_ids, "targets": self.targets.astype(np.uint8), "offsets": self.offsets}, str(path)
        )

    @classmethod
    def load(cls, path: Path) -> TokenRows:
        """Maps the arrays of a file that `save` wrote, read-only. Raises OSError."""
        arrays = _mapped(path)
        return cls(input_ids=arrays["input_ids"], targets=arrays["targets"].view(np.bool_), offsets=arrays["offsets"])

    @classmethod
    def of(cls, rows: Iterable[tuple[Ids, Mask]]) -> TokenRows:
        """Joins single rows. The first token of each loses its target, as there is nothing before it."""
        pairs = list(rows)
        lengths = [len(ids) for ids, _ in pairs]
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
        ids = np.concatenate([ids for ids, _ in pairs] or [np.empty(0, np.int32)])
        targets = np.concatenate([targets for _, targets in pairs] or [np.empty(0, np.bool_)])
        targets[offsets[:-1][np.asarray(lengths, dtype=np.int64) > 0]] = False
        return cls(input_ids=ids, targets=targets, offsets=offsets)


class TokenWriter:
    """Writes token rows that come one at a time, as `TokenRows.save` writes them all: none is held."""

    def __init__(self, path: Path) -> None:
        """Begins beside `path`, which is there when `finish` was called. Raises OSError."""
        self._path = path
        self._rows = self._tokens = 0
        self._parts = [path.with_suffix(f".{name}.part") for name in ("offsets", "input_ids", "targets")]
        with ExitStack() as stack:
            self._files: list[IO[bytes]] = [stack.enter_context(part.open("wb", _PIECE)) for part in self._parts]
            self._open = stack.pop_all()
        self._files[0].write(_packed(0))

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        for part in self._parts:
            part.unlink(missing_ok=True)

    def __len__(self) -> int:
        return self._rows

    def add(self, ids: Ids, targets: Mask) -> None:
        """Appends one row; its first token loses its target, as there is nothing before it. Raises OSError."""
        self._rows += 1
        self._tokens += len(ids)
        offsets, all_ids, all_targets = self._files
        offsets.write(_packed(self._tokens))
        all_ids.write(ids.astype(_I32, copy=False).tobytes())
        all_targets.write(bytes(len(targets[:1])) + targets[1:].tobytes())

    def finish(self) -> TokenRows:
        """Brings the rows together in one file and maps it. Raises OSError."""
        self._open.close()
        header, place = dict[str, Any](), 0
        # in the order that safetensors has them: the widest type first
        for name, dtype, shape in (
            ("offsets", "I64", len(self) + 1),
            ("input_ids", "I32", self._tokens),
            ("targets", "U8", self._tokens),
        ):
            end = place + shape * _DTYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": [shape], "data_offsets": [place, end]}
            place = end
        described = json.dumps(header, separators=(",", ":")).encode()
        described += b" " * (-len(described) % 8)
        with self._path.open("wb") as file:
            file.write(len(described).to_bytes(8, "little") + described)
            for part in self._parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, file, _PIECE)
                # the disk has to hold each array once, but for the one that is copied
                part.unlink()
        return TokenRows.load(self._path)


def fingerprint(*parts: TokenRows | None) -> str:
    """A hash of token arrays, read piece by piece."""
    digest = hashlib.sha256()
    for rows in parts:
        if rows is None:
            continue
        digest.update(f"{len(rows)} rows, {len(rows.input_ids)} tokens\n".encode())
        for array_ in (rows.input_ids, rows.targets, rows.offsets):
            for piece in _pieces(array_):
                digest.update(piece.tobytes())
    return digest.hexdigest()


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array piece by piece; what of it is mapped from a file is let go of, so that it never is in memory whole."""
    base: Any = values
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    for start in range(0, len(values), _PIECE):
        yield values[start : start + _PIECE]
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)


def _packed(number: int) -> bytes:
    """A number as an int64 of a token file."""
    return number.to_bytes(8, "little", signed=True)


def _mapped(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file as memory maps: the format is a length, a JSON header, then the raw arrays."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
    arrays: dict[str, Any] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        start = 8 + header_size + entry["data_offsets"][0]
        # An empty range cannot be mapped.
        arrays[name] = np.memmap(path, dtype, "r", start, shape) if all(shape) else np.empty(shape, dtype)
    return arrays
