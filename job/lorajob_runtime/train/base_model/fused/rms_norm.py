"""RMSNorm under a frozen weight as one function.

    y = x / sqrt(mean(x^2) + eps) * weight          (arXiv:1910.07467)

transformers' own way is a chain of eight operations, and of fifteen backwards, and keeps its input in fp32. Here all of
it is worked out in fp32 and rounded once; the input in its own type and one number a row are saved.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    """x [..., width] and the frozen weight [width] of the same type -> [..., width]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.is_cuda:
            output, rstd = torch.ops.aten._fused_rms_norm(x, weight.shape, weight, eps)
        else:
            wide = x.float()
            rstd = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            rstd = rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            # of fp32 it is the input itself
            scaled = wide * rstd if wide is x else wide.mul_(rstd)
            output = scaled.mul_(weight).to(x.dtype)
        ctx.save_for_backward(x, weight, rstd)
        return cast(Tensor, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        x, weight, rstd = ctx.saved_tensors
        (gradient,) = gradients
        if x.is_cuda:
            return _cuda_backward(gradient, x, weight, rstd), None, None
        wide = x.float()
        through = gradient * weight if gradient.dtype == torch.float32 else gradient.float().mul_(weight)
        along = torch.linalg.vecdot(through, wide).unsqueeze(-1)
        along.mul_(rstd).mul_(rstd).mul_(rstd).div_(x.shape[-1])
        return through.mul_(rstd).addcmul_(wide, along, value=-1).to(x.dtype), None, None


def _cuda_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> Tensor:
    # the kernel reads rows that follow one another
    gradient, x = gradient.contiguous(), x.contiguous()
    found: Tensor = torch.ops.aten._fused_rms_norm_backward(gradient, x, weight.shape, rstd, weight, [True, False])[0]
    return found


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., width] normed by its root mean square, times a frozen weight [width] of the same type."""
    result: Tensor = _RmsNorm.apply(x, weight, eps)
    return result
