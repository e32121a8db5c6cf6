"""Token rows: a tokenised dataset as three flat arrays, in one memory-mapped safetensors file.

Needs numpy and safetensors only, because every training process imports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
Offsets = NDArray[np.int64]

_DTYPES: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "U8": np.dtype("u1"), "I64": np.dtype("<i8")}


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
        """Joins single rows. The first token of each loses its target, as nothing stands before it."""
        pairs = list(rows)
        lengths = [len(ids) for ids, _ in pairs]
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
        ids = np.concatenate([ids for ids, _ in pairs] or [np.empty(0, np.int32)])
        targets = np.concatenate([targets for _, targets in pairs] or [np.empty(0, np.bool_)])
        targets[offsets[:-1][np.asarray(lengths, dtype=np.int64) > 0]] = False
        return cls(input_ids=ids, targets=targets, offsets=offsets)


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
