"""In what form a checkpoint's weights are, as its config.json says, and which forms can be trained.

FP8 weights are dequantised while they are loaded; what is quantised in another way is refused. Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp8Blocks:
    """FP8 weights with one scale a block of `rows` x `columns`; None: one scale a tensor, or as its shape says."""

    rows: int | None
    columns: int | None


def fp8_blocks(name: str, config: Mapping[str, Any]) -> Fp8Blocks | None:
    """The FP8 layout of the checkpoint with this config.json; None when its weights are plain.

    Raises ModelError for weights quantised in another way.
    """
    quantized = config.get("quantization_config")
    if not quantized:
        return None
    method = quantized.get("quant_method") if isinstance(quantized, Mapping) else quantized
    experts = quantized.get("expert_dtype", "fp8") if method == "fp8" else "fp8"
    if method != "fp8" or experts != "fp8":
        how = repr(method) if experts == "fp8" else f"{method!r} with {experts} experts"
        raise ModelError(
            f"{name}: its weights are quantised by {how}: only FP8 with scales is dequantised on load",
            hint="take the repository with the model's bf16 weights; model.quantize makes 4-bit ones of them",
        )
    size = quantized.get("weight_block_size")
    if size is None:
        return Fp8Blocks(rows=None, columns=None)
    try:
        rows, columns = (int(each) for each in size)
    except (TypeError, ValueError):
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise ModelError(f"{name}: config.json has weight_block_size {size!r}: it must be two numbers, like [128, 128]")
    return Fp8Blocks(rows=rows, columns=columns)


def block_bitsandbytes_import(model: ModelSpec) -> None:
    """Has `import bitsandbytes` fail in this process unless the model needs it, which must be said before PEFT loads.

    PEFT imports it wherever it is installed, and that takes seconds at every start.
    """
    if model.quantize is None:
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type] # as the import system documents
