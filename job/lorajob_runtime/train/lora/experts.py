"""LoRA on fused experts without ever building W + BA: the frozen grouped product, and two low-rank ones beside it.

PEFT's ParamWrapper adds the adapter to the whole stack of weights in every forward pass and computes the gradient of
that stack in every backward pass. Here, for the rows of one expert after the other,

    gate, up = x W1' + (x A1') B1'      h = weight * silu(gate) * up      y = h W2' + (h A2') B2'

with the routing weight multiplied in before the second product, where rows are narrower. Saved for the backward pass: x
before it is copied to its experts, gate and up, and rows of the adapter's rank; the rest is made again.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from lorajob_runtime.models.shapes import EXPERT_STACKS

_log = logging.getLogger(__name__)
Factors = tuple[Tensor, Tensor, float]
"""A [experts * rank, in], B [out, rank * experts] as PEFT keeps them, and the scale of their product."""


class _Experts(torch.autograd.Function):
    """x [T, H], index and weights [T, k] -> [T, H]. gate_up [E, 2I, H] and down [E, H, I] are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        index: Tensor,
        weights: Tensor,
        gate_up: Tensor,
        down: Tensor,
        a1: Tensor | None,
        b1: Tensor | None,
        a2: Tensor | None,
        b2: Tensor | None,
        scale1: float,
        scale2: float,
    ) -> Tensor:
        experts = gate_up.shape[0]
        # rows sorted by their expert: row i of the sorted ones is that of token sort_order[i] // k
        ids, sort_order = torch.sort(index.reshape(-1), stable=True)
        group_offsets = torch.searchsorted(ids, torch.arange(experts, device=ids.device), right=True).to(torch.int32)
        rows = x.to(gate_up.dtype)[sort_order // index.shape[1]]
        weight = weights.reshape(-1, 1)[sort_order]
        gate_up_out, lora_hidden1 = _adapted(rows, gate_up, a1, b1, scale1, group_offsets)
        hidden = _activated(gate_up_out, weight)
        output, lora_hidden2 = _adapted(hidden, down, a2, b2, scale2, group_offsets)
        ctx.save_for_backward(
            *(x, sort_order, group_offsets, weight, gate_up, down, a1, b1, a2, b2),
            *(gate_up_out, lora_hidden1, lora_hidden2),
        )
        ctx.scales = scale1, scale2
        return _to_tokens(output, sort_order, index.shape[1]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, sort_order, group_offsets, weight, gate_up, down, a1, b1, a2, b2, *products = ctx.saved_tensors
        gate_up_out, lora_hidden1, lora_hidden2 = products
        scale1, scale2 = ctx.scales
        choices = sort_order.numel() // x.shape[0]
        tokens = sort_order // choices
        gradient = gradients[0].to(down.dtype)[tokens]
        hidden = _activated(gate_up_out, weight)
        gradient_hidden, gradient_a2, gradient_b2 = _adapted_backward(
            gradient, hidden, lora_hidden2, down, a2, b2, scale2, group_offsets
        )
        del gradient, hidden
        gradient_weights = None
        gate, up = gate_up_out.chunk(2, dim=-1)
        if ctx.needs_input_grad[2]:
            sorted_weights = (gradient_hidden * (F.silu(gate) * up)).sum(-1, dtype=weight.dtype)
            gradient_weights = (
                torch.empty_like(sorted_weights).scatter_(0, sort_order, sorted_weights).view(-1, choices)
            )
        gradient_hidden = (gradient_hidden * weight).to(gate_up_out.dtype)
        gradient_gate = torch.ops.aten.silu_backward(gradient_hidden * up, gate)
        gradient_gate_up = torch.cat([gradient_gate, gradient_hidden.mul_(F.silu(gate))], dim=-1)
        del gradient_gate, gradient_hidden
        rows = x.to(gate_up.dtype)[tokens] if a1 is not None else None
        gradient_rows, gradient_a1, gradient_b1 = _adapted_backward(
            gradient_gate_up,
            rows,
            lora_hidden1,
            gate_up,
            a1,
            b1,
            scale1,
            group_offsets,
            wants_input=ctx.needs_input_grad[0],
        )
        gradient_x = None if gradient_rows is None else _to_tokens(gradient_rows, sort_order, choices).to(x.dtype)
        return (
            *(gradient_x, None, gradient_weights, None, None),
            *(gradient_a1, gradient_b1, gradient_a2, gradient_b2, None, None),
        )


def _activated(gate_up_out: Tensor, weight: Tensor) -> Tensor:
    gate, up = gate_up_out.chunk(2, dim=-1)
    return (F.silu(gate).mul_(up) * weight).to(gate_up_out.dtype)


def _to_tokens(rows: Tensor, sort_order: Tensor, choices: int) -> Tensor:
    """Sums each token's rows, always in the same order."""
    place = torch.empty_like(sort_order).scatter_(
        0, sort_order, torch.arange(sort_order.numel(), device=sort_order.device)
    )
    return rows[place].view(-1, choices, rows.shape[-1]).sum(1)


def _adapted(
    rows: Tensor, weight: Tensor, a: Tensor | None, b: Tensor | None, scale: float, group_offsets: Tensor
) -> tuple[Tensor, Tensor | None]:
    """rows [S, in] through weight [E, out, in] and the adapter: [S, out], and what the adapter's A made [S, rank]."""
    output = F.grouped_mm(rows, weight.transpose(-2, -1), offs=group_offsets)
    if a is None or b is None:
        return output, None
    lora_hidden = F.grouped_mm(rows, _by_expert_a(a, weight).transpose(-2, -1), offs=group_offsets)
    return output.add_(F.grouped_mm(lora_hidden, _by_expert_b(b, weight, scale), offs=group_offsets)), lora_hidden


def _adapted_backward(
    gradient: Tensor,
    rows: Tensor | None,
    lora_hidden: Tensor | None,
    weight: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    scale: float,
    group_offsets: Tensor,
    *,
    wants_input: bool = True,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of rows, A and B, the latter two in fp32 and PEFT's layout."""
    gradient_rows = F.grouped_mm(gradient, weight, offs=group_offsets) if wants_input else None
    if a is None or b is None or lora_hidden is None or rows is None:
        return gradient_rows, None, None
    gradient_lora_hidden = F.grouped_mm(gradient, _by_expert_b(b, weight, scale).transpose(-2, -1), offs=group_offsets)
    if gradient_rows is not None:
        gradient_rows.add_(F.grouped_mm(gradient_lora_hidden, _by_expert_a(a, weight), offs=group_offsets))
    # an expert without rows is a product over nothing, which not every kernel writes as zeros
    empty = (group_offsets.diff(prepend=group_offsets.new_zeros(1)) == 0).view(-1, 1, 1)
    rank = a.shape[0] // weight.shape[0]
    gradient_a = F.grouped_mm(gradient_lora_hidden.t(), rows, offs=group_offsets).masked_fill_(empty, 0)[:, :rank]
    gradient_b = F.grouped_mm(lora_hidden.t(), gradient, offs=group_offsets).masked_fill_(empty, 0)[:, :rank]
    return (
        gradient_rows,
        gradient_a.reshape(a.shape).to(a.dtype),
        gradient_b.permute(2, 1, 0).reshape(b.shape).to(b.dtype).mul_(scale),
    )


def _by_expert_a(a: Tensor, weight: Tensor) -> Tensor:
    """[E, rank, in] in the weight's type."""
    return _aligned(a.to(weight.dtype).view(weight.shape[0], -1, a.shape[1]))


def _by_expert_b(b: Tensor, weight: Tensor, scale: float) -> Tensor:
    """[E, rank, out] in the weight's type, scaled."""
    by_expert = (b * scale).to(weight.dtype).view(b.shape[0], -1, weight.shape[0]).permute(2, 1, 0)
    return _aligned(by_expert.contiguous())


def _aligned(factor: Tensor) -> Tensor:
    """With ranks of zeros added until rows of so many numbers begin at multiples of 16 bytes, as kernels want them."""
    surplus = -factor.shape[1] % (16 // factor.element_size())
    return F.pad(factor, (0, 0, 0, surplus)) if surplus else factor


class FactoredExperts(ParamWrapper):
    """The outermost of PEFT's wrappers around fused experts, computing all of them at once."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or kwargs or len(args) != 2 or len(self.active_adapters) != 1:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        factors: dict[str, Factors] = {}
        module: nn.Module = self
        while isinstance(module, ParamWrapper):
            factors[module.parameter_name] = _factors(module)
            module = module.base_layer
        a1, b1, scale1 = factors.get("gate_up_proj", (None, None, 1.0))
        a2, b2, scale2 = factors.get("down_proj", (None, None, 1.0))
        result: Tensor = _Experts.apply(x, *args, module.gate_up_proj, module.down_proj, a1, b1, a2, b2, scale1, scale2)
        return result


def _factors(wrapper: Any) -> Factors:
    adapter = wrapper.active_adapters[0]
    return wrapper.lora_A[adapter].weight, wrapper.lora_B[adapter].weight, wrapper.scaling[adapter]


def factor(model: nn.Module) -> int:
    """Turns PEFT's wrappers around experts into factored ones, in place. Returns around how many blocks of experts.

    Experts that do something else than silu(gate) * up keep PEFT's own slow way.
    """
    count = 0
    inner: set[int] = set()
    odd: set[str] = set()
    for module in model.modules():
        if type(module) is not ParamWrapper or id(module) in inner:
            continue
        below: Any = module.base_layer
        while isinstance(below, ParamWrapper):
            inner.add(id(below))
            below = below.base_layer
        if _is_plain(below):
            module.__class__ = FactoredExperts
            count += 1
        elif below.get_parameter(module.parameter_name).ndim == 3:
            odd.add(type(below).__name__)
    for experts in sorted(odd):
        _log.warning("LoRA on %s trains in PEFT's own way, which is slow: only silu(gate) * up is known here", experts)
    return count


def _is_plain(experts: Any) -> bool:
    """Whether these are fused experts as `_Experts` computes them."""
    if not all(getattr(getattr(experts, name, None), "ndim", 0) == 3 for name in EXPERT_STACKS):
        return False
    odd = ("has_bias", "is_transposed", "has_post_expert_norm")
    return (
        isinstance(experts.act_fn, nn.SiLU | SiLUActivation)
        and experts.has_gate
        and experts.is_concatenated
        and experts._apply_gate.__func__.__name__ == "_default_apply_gate"
        and not any(getattr(experts, name) for name in odd)
    )
