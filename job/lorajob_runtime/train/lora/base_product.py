"""The product with a frozen weight and its gradient: the one place where an adapted layer computes with its base.

Every fused LoRA layer, alone or in a group, calls `forward` once a forward pass and `backward` at most once a backward
pass, outside of autograd. So a base that is kept or multiplied in another format needs nothing but a branch in each of
the two, by what the weight is or by an attribute that was put on it when the model was loaded: autograd hands the same
weight object to the backward pass. An adapter's own products never come here, they stay in the run's precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorajob_runtime.train.lora import fp8_product


def forward(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows [T, in] through a frozen weight [out, in] and bias [out]: a tensor [T, out] of its own, in rows' type."""
    if (in_fp8 := fp8_product.of(weight)) is not None:
        return fp8_product.forward(rows, in_fp8, bias)
    if (state := getattr(weight, "quant_state", None)) is not None:
        return _four_bit_forward(rows, weight, state, bias)
    if bias is None:
        return rows @ weight.t()
    return bias.addmm(rows, weight.t())


def backward(gradient: Tensor, weight: Tensor, into: Tensor | None = None) -> Tensor:
    """The gradient of rows [T, in] by that of the output [T, out]; added to `into` [T, in], in place, where given."""
    if (in_fp8 := fp8_product.of(weight)) is not None:
        through = fp8_product.backward(gradient, in_fp8)
        return through if into is None else into.add_(through)
    if (state := getattr(weight, "quant_state", None)) is not None:
        weight = _unpacked(weight, state, gradient.dtype)
    if into is None:
        return gradient @ weight
    return into.addmm_(gradient, weight)


def _four_bit_forward(rows: Tensor, weight: Tensor, state: Any, bias: Tensor | None) -> Tensor:
    import bitsandbytes

    # its own product, which for a single row on a GPU never unpacks the weight
    bias = None if bias is None else bias.to(rows.dtype)
    output: Tensor = bitsandbytes.matmul_4bit(rows, weight.data, quant_state=state, bias=bias)
    return output


def _unpacked(weight: Tensor, state: Any, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that four bits a number stand for."""
    import bitsandbytes.functional

    unpacked: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, state)
    return unpacked.to(dtype)
