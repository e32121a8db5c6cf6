"""silu(gate) * up as one function that saves gate and up alone: silu(gate) is made again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _SwiGlu(torch.autograd.Function):
    """gate and up [..., width] of one type -> [..., width]."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (gradient,) = gradients
        gradient_up = F.silu(gate).mul_(gradient)
        gradient_gate = gradient * up
        # elementwise, so it may be written over what it reads
        torch.ops.aten.silu_backward.grad_input(gradient_gate, gate, grad_input=gradient_gate)
        return gradient_gate, gradient_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise."""
    result: Tensor = _SwiGlu.apply(gate, up)
    return result
