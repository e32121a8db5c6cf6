"""PEFT's LoRA linears with one hand-written forward and backward for all that read the same input.

    y_i = x W_i' + s_i (kept * x) A_i' B_i'        s_i = scale_i / (1 - dropout)

The thin products run in the frozen weight's type with fp32 accumulation, as under autocast, in training and outside of
it; A, B and their gradients stay fp32. Saved for the backward pass: x with what is dropped 0, once for all, and x A'.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from lorajob_runtime.train.lora import base_product, dropout, experts
from lorajob_runtime.train.lora.dropout import Draw, DropoutMasks
from lorajob_runtime.train.lora.factors import Factors
from lorajob_runtime.train.lora.groups import Fused, Group, Waiting


class _LoraLinears(torch.autograd.Function):
    """x [..., in] -> [rows of x, out_i] for each of n layers.

    `parameters` are n frozen weights [out_i, in], their biases [out_i] or None, n A [rank_i, in] and n B
    [out_i, rank_i]. The latter two are there for autograd: products take `factors`' copies of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept: Tensor | None,
        draw: Draw | None,
        factors: Factors,
        scales: Sequence[float],
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        count = len(scales)
        weights, biases = cast(tuple[Tensor, ...], parameters[:count]), parameters[count : 2 * count]
        rows = x.reshape(-1, x.shape[-1])
        a, b = factors.current(x.dtype)
        masked = rows if draw is None else dropout.masked(rows, draw, kept)
        down = masked @ a.t()
        outputs = []
        parts = down.split(factors.ranks, dim=1)
        for weight, bias, thin, part, scale in zip(weights, biases, b, parts, scales, strict=True):
            outputs.append(base_product.forward(rows, weight, bias).addmm_(part, thin.t(), alpha=scale))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(masked, kept, down, a, *b, *weights)
        ctx.shape, ctx.factors, ctx.scales = x.shape, factors, scales
        # what is kept is held above, where gradient checkpointing can let go of it
        ctx.draw = None if draw is None else dataclasses.replace(draw, kept=None)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        masked, kept, down, a, *others = ctx.saved_tensors
        factors, scales, count = ctx.factors, ctx.scales, len(ctx.scales)
        b, weights = others[:count], others[count:]
        gradient_down = torch.empty_like(down)
        gradients_b: list[Tensor | None] = [None] * count
        edges = itertools.pairwise(itertools.accumulate(factors.ranks, initial=0))
        for number, (start, end) in enumerate(edges):
            part, gradient = gradient_down[:, start:end], gradients[number]
            if gradient is None:
                part.zero_()
                continue
            torch.addmm(part, gradient, b[number], beta=0, alpha=scales[number], out=part)
            gradients_b[number] = factors.gradient_of_b(number, gradient, down[:, start:end], scales[number])
        gradients_a = factors.gradients_of_a(gradient_down, masked)
        gradient_x = None
        if ctx.needs_input_grad[0]:
            gradient_x = gradient_down @ a
            if ctx.draw is not None:
                dropout.mask_(gradient_x, ctx.draw, kept)
            for gradient, weight in zip(gradients, weights, strict=True):
                if gradient is not None:
                    base_product.backward(gradient, weight, into=gradient_x)
            gradient_x = gradient_x.view(ctx.shape)
        return (gradient_x, *(None,) * (4 + 2 * count), *gradients_a, *gradients_b)


def _compute(group: Group, x: Tensor, draw: Draw | None) -> tuple[Tensor, ...]:
    """The outputs of a group's layers [..., out], each of which a model may write to."""
    bases = [cast(nn.Linear, layer.base_layer) for layer in group.layers]
    factors = group.factors
    kept_share = 1.0 if draw is None else 1 - draw.probability
    outputs: tuple[Tensor, ...] = _LoraLinears.apply(
        x,
        None if draw is None else draw.kept,
        draw,
        factors,
        tuple(layer.scaling[layer.active_adapters[0]] / kept_share for layer in group.layers),
        *(base.weight for base in bases),
        *(base.bias for base in bases),
        *factors.a,
        *factors.b,
    )
    return tuple(output.view(*x.shape[:-1], -1) for output in outputs)


class FusedLoraLinear(Fused, PeftLinear):
    """A linear layer that PEFT adapts as a module."""


class FusedLoraWeight(Fused, ParamWrapper):
    """A linear layer whose weight PEFT adapts as a parameter: without a new weight each time."""


def fuse(model: nn.Module, masks: DropoutMasks) -> int:
    """Turns every plain LoRA layer of a PEFT model into a fused one, in place, experts too. Returns how many.

    Each is a group of its own until `groups.find` joins those that read the same input.
    """
    kinds: dict[type, type] = {PeftLinear: FusedLoraLinear, ParamWrapper: FusedLoraWeight}
    if getattr(model, "is_loaded_in_4bit", False):
        from lorajob_runtime.train.lora import nf4

        kinds |= nf4.fused_kinds()
    waiting = Waiting()
    count = 0
    for module in model.modules():
        fused = kinds.get(type(module))
        if fused is not None and _is_plain(module):
            module.__class__ = fused
            module.__dict__.update(fused_group=Group([module], masks, waiting, _compute), fused_index=count)
            count += 1
    return count + experts.factor(model)


def _is_plain(module: Any) -> bool:
    """Whether the base is a linear layer, in place: accelerate's hook brings weights that are elsewhere."""
    base = module.base_layer
    is_linear = type(base) is nn.Linear or hasattr(getattr(base, "weight", None), "quant_state")
    return is_linear and not hasattr(base, "_hf_hook") and not any(module.lora_bias.values())
