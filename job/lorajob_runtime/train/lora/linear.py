"""PEFT's LoRA linear with one hand-written forward and backward instead of a chain of some ten operations.

    y = x W' + (mask * x) A' (scale * B)'

The thin products run in the frozen weight's type with fp32 accumulation, as under autocast; A, B and their gradients
stay fp32. Saved for the backward pass: x (shared with the other layers that read it), the mask (shared too), and x A'.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from lorajob_runtime.train.lora import base_product, experts
from lorajob_runtime.train.lora.dropout import DropoutMasks


class _LoraLinear(torch.autograd.Function):
    """x [..., in], frozen weight [out, in] and bias [out] or None, A [rank, in], B [out, rank] -> [..., out]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        thin_a = a.to(x.dtype)
        thin_b = (b * scale).to(x.dtype).t().contiguous()
        down = (rows if mask is None else rows * mask.view_as(rows)) @ thin_a.t()
        output = base_product.forward(rows, weight, bias)
        output.addmm_(down, thin_b)
        ctx.save_for_backward(x, weight, thin_a, thin_b, down, mask)
        ctx.scale = scale
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, thin_a, thin_b, down, mask = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        rows = x.reshape(-1, x.shape[-1])
        flat_mask = None if mask is None else mask.view_as(rows)
        gradient_down = gradient @ thin_b.t()
        gradient_b = (down.t() @ gradient).t().float().mul_(ctx.scale)
        gradient_a = (gradient_down.t() @ (rows if flat_mask is None else rows * flat_mask)).float()
        gradient_x = None
        if ctx.needs_input_grad[0]:
            through_a = gradient_down @ thin_a
            if flat_mask is not None:
                through_a.mul_(flat_mask)
            gradient_x = base_product.backward(gradient, weight, into=through_a).view_as(x)
        return gradient_x, None, None, gradient_a, gradient_b, None, None


class FusedLoraLinear(PeftLinear):
    """A PEFT LoRA linear that trains through `_LoraLinear`. Outside training it is PEFT's own."""

    fused_masks: DropoutMasks
    fused_index: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.training or self.disable_adapters or self.merged or args or kwargs:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        return _fused(self, x)


class FusedLoraWeight(ParamWrapper):
    """A linear layer whose weight PEFT adapts as a parameter: `_LoraLinear` instead of a new weight each time."""

    fused_masks: DropoutMasks
    fused_index: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs or len(self.active_adapters) != 1:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        return _fused(self, x)


def _fused(layer: FusedLoraLinear | FusedLoraWeight, x: Tensor) -> Tensor:
    adapter = layer.active_adapters[0]
    probability = getattr(layer.lora_dropout[adapter], "p", 0.0) if layer.training else 0.0
    mask = layer.fused_masks.mask(x, probability, layer.fused_index) if probability else None
    base = cast(nn.Linear, layer.base_layer)
    result: Tensor = _LoraLinear.apply(
        x,
        base.weight,
        base.bias,
        layer.lora_A[adapter].weight,
        layer.lora_B[adapter].weight,
        layer.scaling[adapter],
        mask,
    )
    return result


def fuse(model: nn.Module, masks: DropoutMasks) -> int:
    """Turns every plain LoRA layer of a PEFT model into a fused one, in place, experts too. Returns how many."""
    count = 0
    for module in model.modules():
        fused = _FUSED.get(type(module))
        if fused is not None and _is_plain(module):
            module.__class__ = fused
            module.__dict__.update(fused_masks=masks, fused_index=count)
            count += 1
    if getattr(model, "is_loaded_in_4bit", False):
        from lorajob_runtime.train.lora import nf4

        count += nf4.fuse(model, masks, count)
    return count + experts.factor(model)


_FUSED: dict[type, type] = {PeftLinear: FusedLoraLinear, ParamWrapper: FusedLoraWeight}


def _is_plain(module: Any) -> bool:
    return type(module.base_layer) is nn.Linear and not any(module.lora_bias.values())
