"""Products with frozen weights in FP8, for `train.baseCompute: fp8`: forward and for the gradient of the input.

Numbers are e4m3, each row of a factor scaled by a power of two of its own, so that scaling rounds nothing; products are
added up in fp32 and come out in the type of the rows. Of a weight there are two copies, since a row of one factor must
be a row of the weight in the forward pass and a column of it in the backward pass: as many bytes as it has in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from lorajob_runtime.models import preflight

_TYPE = torch.float8_e4m3fn
_MOST = torch.finfo(_TYPE).max
_LEAST = 2.0**-60
"""What a row's largest number is taken for where that is less; bf16 has the inverse of its scale."""
_MULTIPLE = 16
"""What the kernel wants the sizes of a weight to be a multiple of; one that is not keeps its precision."""
_ATTRIBUTE = "fp8"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fp8Weight:
    """A frozen weight [out, in]: quantised by its rows [out, in], and by its columns, which lie as rows [in, out]."""

    by_output: Tensor
    output_scales: Tensor
    """[1, out], fp32."""
    by_input: Tensor
    input_scales: Tensor
    """[1, in], fp32."""


class Fp8Linear(nn.Linear):
    """A frozen linear layer whose products are in FP8, also where no adapter takes part."""

    def forward(self, x: Tensor) -> Tensor:
        rows = forward(x.reshape(-1, x.shape[-1]), cast(Fp8Weight, of(self.weight)), self.bias)
        return rows.view(*x.shape[:-1], -1)


def check(device: torch.device) -> None:
    """Raises ConfigError for a device that does not multiply FP8."""
    preflight.check_fp8(torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


@torch.no_grad()
def quantize(model: nn.Module) -> int:
    """Has the fused LoRA layers of a model multiply with their frozen weights in FP8. Returns how many do.

    The weights themselves are gone then: a number that is none stands for each, with its shape.
    """
    count = 0
    for module in model.modules():
        # PEFT's own class would have autograd go through the base layer, whose products are not its operations
        is_fused = isinstance(module, PeftLinear) and type(module) is not PeftLinear
        if is_fused and type(module.base_layer) is nn.Linear and _is_even(module.base_layer.weight):
            base = module.base_layer
            weight = quantized(base.weight)
            base.weight.data = base.weight.data.new_full((), torch.nan).expand(base.weight.shape)
            setattr(base.weight, _ATTRIBUTE, weight)
            base.__class__ = Fp8Linear
            count += 1
    return count


def _is_even(weight: Tensor) -> bool:
    return all(size % _MULTIPLE == 0 for size in weight.shape)


def of(weight: Tensor) -> Fp8Weight | None:
    """The FP8 copies of a frozen weight, which stand for it; None for one that is what it is."""
    return getattr(weight, _ATTRIBUTE, None)


def quantized(weight: Tensor) -> Fp8Weight:
    """weight [out, in] as its two copies."""
    by_output, output_scales = _by_rows(weight)
    by_input, input_scales = _by_rows(weight.t().contiguous())
    return Fp8Weight(
        by_output=by_output,
        output_scales=output_scales.t().contiguous(),
        by_input=by_input,
        input_scales=input_scales.t().contiguous(),
    )


def forward(rows: Tensor, weight: Fp8Weight, bias: Tensor | None) -> Tensor:
    """rows [T, in] through the weight, and bias [out]: [T, out] in rows' type."""
    output = _product(rows, weight.by_output, weight.output_scales)
    return output if bias is None else output.add_(bias)


def backward(gradient: Tensor, weight: Fp8Weight) -> Tensor:
    """The gradient of rows [T, in] by that of the output [T, out]."""
    return _product(gradient, weight.by_input, weight.input_scales)


def _product(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    quantized_rows, row_scales = _by_rows(rows)
    return torch._scaled_mm(quantized_rows, weight.t(), scale_a=row_scales, scale_b=scales, out_dtype=rows.dtype)


def _by_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows [n, k] in FP8, and what each of them is to be multiplied by [n, 1] (fp32, a power of two)."""
    most = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=_LEAST)
    scales = (most / _MOST).log2().ceil().exp2()
    return (rows * scales.reciprocal().to(rows.dtype)).to(_TYPE), scales
