"""FP8 checkpoints read as if their weights were plain: each slice is dequantised when, and only where, it is asked for.

transformers reads a checkpoint by slices, so that every rank takes only its part of a sharded parameter. Its own
`FineGrainedFP8Config(dequantize=True)` slices weights and scales alike, which is right only where a rank's rows are
whole blocks: else it multiplies by other blocks' scales without a word, or fails; and it takes a block for smaller than
it is where the last one of a weight is cut. Here a slice knows where it lies. Scales multiply (`weight_scale_inv` is
the inverse of what the weight was multiplied by when it was quantised: DeepSeek-V3 technical report, section 3.3).

What goes to a GPU are the bytes as they are stored, half of what they stand for, and they are dequantised there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.models.quantization import Fp8Blocks

_SCALE = "_scale_inv"
_ACTIVATION_SCALES = (".activation_scale", ".input_scale")
_GPU_ELEMENTS = 2**25
"""How many numbers a GPU dequantises at a time: their fp32 products and scales take eight bytes each."""
_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


class Dequantized:
    """One weight [rows, columns] of a file, with the interface of a safetensors slice.

    What is read is in `dtype` on `device`.
    """

    def __init__(
        self, name: str, weight: Any, scale: Any, blocks: Fp8Blocks, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Raises ModelError when the scales are not one a block."""
        shape, grid = weight.get_shape(), scale.get_shape()
        if len(shape) != 2:
            raise ModelError(f"{name} has shape {shape}: FP8 weights must have two dimensions")
        self._weight, self._scale, self._dtype, self._device = weight, scale, dtype, device
        self._shape: list[int] = shape
        rows, columns = grid if len(grid) == 2 else (1, 1) if grid in ([], [1]) else (0, 0)
        block_rows, block_columns = _block(shape[0], rows, blocks.rows), _block(shape[1], columns, blocks.columns)
        if block_rows is None or block_columns is None:
            raise ModelError(
                f"{name} has shape {shape} and scales of {grid}: they must be one a block of "
                f"{blocks.rows} x {blocks.columns}"
            )
        self._block_rows, self._block_columns = block_rows, block_columns

    def get_shape(self) -> list[int]:
        """[rows, columns]."""
        return self._shape

    def get_dtype(self) -> str:
        """As safetensors names the type that is read."""
        return _NAMES[self._dtype]

    def __getitem__(self, index: EllipsisType | tuple[slice, ...]) -> Tensor:
        """Rows and columns by plain slices, dequantised."""
        slices = (slice(None), slice(None)) if index is ... else (*index, slice(None))[:2]
        (top, bottom, _), (left, right, _) = (
            each.indices(size) for each, size in zip(slices, self._shape, strict=True)
        )
        quantized: Tensor = self._weight[top:bottom, left:right].to(self._device)
        output = torch.empty(quantized.shape, dtype=self._dtype, device=self._device)
        scales = _float(self._scale[...].to(self._device)).reshape(-(-self._shape[0] // self._block_rows), -1)
        columns = torch.arange(left, right, device=self._device) // self._block_columns
        rows = torch.arange(top, bottom, device=self._device) // self._block_rows
        together = self._rows_together(right - left)
        for start in range(top - top % together, bottom, together):
            part = slice(max(start - top, 0), min(start + together, bottom) - top)
            output[part] = quantized[part].float() * scales[rows[part]][:, columns]
        return output

    def _rows_together(self, columns: int) -> int:
        """Rows that are dequantised at a time: whole blocks of them."""
        if self._device.type == "cpu":
            # one block, so that the fp32 products stay in the cache
            return self._block_rows
        return self._block_rows * max(1, _GPU_ELEMENTS // max(1, columns * self._block_rows))


def _block(size: int, scales: int, block: int | None) -> int | None:
    """Rows or columns of a block, when so many scales can belong to so many of them."""
    if scales == 1:
        return size
    if block is not None and -(-size // block) == scales:
        return block
    return size // scales if block is None and scales and size % scales == 0 else None


def _float(scales: Tensor) -> Tensor:
    """Scales as fp32; bytes are exponents of two (the e8m0 format of the OCP MX specification)."""
    if scales.dtype == torch.uint8:
        return (scales.float() - 127).exp2()
    return scales.float()


@contextlib.contextmanager
def opened(path: Path, blocks: Fp8Blocks, dtype: torch.dtype, device: torch.device) -> Iterator[dict[str, Any]]:
    """The checkpoint's weights by name, as slices that transformers reads from; closed at the end.

    FP8 weights are read onto `device`, others onto the CPU.

    Raises ModelError for a weight without its scales, OSError for a file that is not there.
    """
    with contextlib.ExitStack() as files:
        stored: dict[str, Any] = {}
        for file in _files(path):
            content = files.enter_context(safe_open(file, framework="pt"))
            stored |= {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 - it is no mapping
        yield {
            name: _plain(name, tensor, stored, blocks, dtype, device)
            for name, tensor in stored.items()
            if not name.endswith((_SCALE, *_ACTIVATION_SCALES))
        }


def _plain(
    name: str, tensor: Any, stored: dict[str, Any], blocks: Fp8Blocks, dtype: torch.dtype, device: torch.device
) -> Any:
    kind = tensor.get_dtype()
    if kind.startswith(("F8", "F4")) or (name + _SCALE) in stored:
        if kind not in ("F8_E4M3", "F8_E5M2") or (name + _SCALE) not in stored:
            raise ModelError(f"{name} is stored as {kind}: it must be F8_E4M3 with its scales in {name}{_SCALE}")
        return Dequantized(name, tensor, stored[name + _SCALE], blocks, dtype, device)
    return tensor


def _files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return [path / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [path / "model.safetensors"]
