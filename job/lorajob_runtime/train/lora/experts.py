"""LoRA on fused experts without ever building W + BA: the frozen grouped product, and two low-rank ones beside it.

PEFT's ParamWrapper adds the adapter to the whole stack of weights in every forward pass and computes the gradient of
that stack in every backward pass. Here, for the rows of one expert after the other,

    gate, up = x W1' + (x A1') B1'      h = weight * silu(gate) * up      y = h W2' + (h A2') B2'

with the routing weight multiplied in before the second product, where rows are narrower. Saved for the backward pass: x
before it is copied to its experts, gate and up, and rows of the adapter's rank; the rest is made again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from lorajob_runtime.models.shapes import EXPERT_STACKS
from lorajob_runtime.train.lora import expert_loop
from lorajob_runtime.train.lora.expert_loop import Adapter

_log = logging.getLogger(__name__)
Copies = Callable[[], Sequence[Adapter | None]]
"""Gives the adapters of gate_up_proj and down_proj as products take them."""


class _Experts(torch.autograd.Function):
    """x [T, H], index and weights [T, k] -> [T, H]. gate_up [E, 2I, H] and down [E, H, I] are frozen.

    `factors` are A and B of both, for autograd: products take the copies of them that `copies` gives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        index: Tensor,
        weights: Tensor,
        gate_up: Tensor,
        down: Tensor,
        copies: Copies,
        *factors: Tensor | None,
    ) -> Tensor:
        first, second = copies()
        # rows sorted by their expert: row i of the sorted ones is that of token sort_order[i] // k
        ids, sort_order = torch.sort(index.reshape(-1), stable=True)
        numbers = torch.arange(gate_up.shape[0], device=ids.device)
        group_offsets = torch.searchsorted(ids, numbers, right=True).to(torch.int32)
        rows = x.to(gate_up.dtype)
        weight = weights.reshape(-1, 1)[sort_order]
        ctx.copies, ctx.shapes, ctx.choices = copies, [_shape(item) for item in factors], index.shape[1]
        ctx.in_turn = goes_in_turn(x.device)
        if ctx.in_turn:
            ctx.ends = group_offsets.tolist()
            routed = _routed(sort_order, weight.to(rows.dtype), ctx)
            output, saved = expert_loop.forward(rows, routed, gate_up, down, first, second)
            products = saved.gate_up, saved.lora_hidden1, saved.lora_hidden2
        else:
            rows = rows[sort_order // ctx.choices]
            gate_up_out, lora_hidden1 = _adapted(rows, gate_up, first, group_offsets)
            hidden = _activated(gate_up_out, weight)
            output, lora_hidden2 = _adapted(hidden, down, second, group_offsets)
            output = _to_tokens(output, sort_order, ctx.choices)
            products = gate_up_out, lora_hidden1, lora_hidden2
        ctx.dtype = x.dtype
        ctx.save_for_backward(x, sort_order, group_offsets, weight, gate_up, down, *products)
        return output.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        backward = _backward_in_turn if ctx.in_turn else _backward_grouped
        gradient_x, gradient_weights, *of_factors = backward(ctx, gradients[0])
        laid_out = []
        for factor, shape, scale_layout in zip(of_factors, ctx.shapes, ("a", "b", "a", "b"), strict=True):
            if factor is not None and scale_layout == "b":
                # [E, rank, out] to PEFT's [out, rank * E]
                factor = factor.permute(2, 1, 0)
            laid_out.append(None if factor is None else factor.reshape(shape))
        return (
            *(None if gradient_x is None else gradient_x.to(ctx.dtype), None, gradient_weights),
            *(None, None, None, *laid_out),
        )


def goes_in_turn(device: torch.device) -> bool:
    """Whether experts are computed one after the other: where one's rows fit the caches, and a call costs little."""
    return device.type == "cpu"


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _routed(sort_order: Tensor, weight: Tensor, ctx: Any) -> expert_loop.Routed:
    return expert_loop.Routed(tokens=sort_order // ctx.choices, weight=weight, ends=ctx.ends)


def _backward_in_turn(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """The gradients of x, of the routing weights and of each A and B [E, rank, ...], one expert after the other."""
    x, sort_order, _, weight, gate_up, down, *products = ctx.saved_tensors
    saved = expert_loop.Saved(gate_up=products[0], lora_hidden1=products[1], lora_hidden2=products[2])
    first, second = ctx.copies()
    found = expert_loop.backward(
        gradient.to(down.dtype),
        x.to(gate_up.dtype),
        _routed(sort_order, weight.to(gate_up.dtype), ctx),
        gate_up,
        down,
        first,
        second,
        saved,
        wants_x=ctx.needs_input_grad[0],
    )
    of_weights = _unsorted(found.weight.to(weight.dtype), sort_order, ctx.choices) if ctx.needs_input_grad[2] else None
    return [found.x, of_weights, *(found.first or (None, None)), *(found.second or (None, None))]


def _unsorted(values: Tensor, sort_order: Tensor, choices: int) -> Tensor:
    """One number a row, in the order of experts, as [T, k]."""
    return torch.empty_like(values).scatter_(0, sort_order, values).view(-1, choices)


def _backward_grouped(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """The same by grouped products over all rows."""
    x, sort_order, group_offsets, weight, gate_up, down, *products = ctx.saved_tensors
    gate_up_out, lora_hidden1, lora_hidden2 = products
    first, second = ctx.copies()
    tokens = sort_order // ctx.choices
    gradient = gradient.to(down.dtype)[tokens]
    hidden = _activated(gate_up_out, weight)
    gradient_hidden, *of_second = _adapted_backward(gradient, hidden, lora_hidden2, down, second, group_offsets)
    del gradient, hidden
    gate, up = gate_up_out.chunk(2, dim=-1)
    gated = F.silu(gate)
    of_weights = None
    if ctx.needs_input_grad[2]:
        values = (gradient_hidden * (gated * up)).sum(-1, dtype=weight.dtype)
        of_weights = _unsorted(values, sort_order, ctx.choices)
    gradient_hidden = (gradient_hidden * weight).to(gate_up_out.dtype)
    gradient_gate_up = torch.empty_like(gate_up_out)
    torch.mul(gradient_hidden, gated, out=gradient_gate_up[:, gate.shape[1] :])
    del gated
    gradient_gate_up[:, : gate.shape[1]] = torch.ops.aten.silu_backward(gradient_hidden.mul_(up), gate)
    del gradient_hidden
    rows = x.to(gate_up.dtype)[tokens] if first is not None else None
    gradient_rows, *of_first = _adapted_backward(
        gradient_gate_up, rows, lora_hidden1, gate_up, first, group_offsets, wants_input=ctx.needs_input_grad[0]
    )
    of_x = None if gradient_rows is None else _to_tokens(gradient_rows, sort_order, ctx.choices)
    return [of_x, of_weights, *of_first, *of_second]


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
    rows: Tensor, weight: Tensor, adapter: Adapter | None, group_offsets: Tensor
) -> tuple[Tensor, Tensor | None]:
    """rows [S, in] through weight [E, out, in] and the adapter: [S, out], and what the adapter's A made [S, rank]."""
    output = F.grouped_mm(rows, weight.transpose(-2, -1), offs=group_offsets)
    if adapter is None:
        return output, None
    lora_hidden = F.grouped_mm(rows, adapter.a.transpose(-2, -1), offs=group_offsets)
    return output.add_(F.grouped_mm(lora_hidden, adapter.b, offs=group_offsets), alpha=adapter.scale), lora_hidden


def _adapted_backward(
    gradient: Tensor,
    rows: Tensor | None,
    lora_hidden: Tensor | None,
    weight: Tensor,
    adapter: Adapter | None,
    group_offsets: Tensor,
    *,
    wants_input: bool = True,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of rows, of A [E, rank, in] and of B [E, rank, out], the latter two in fp32."""
    gradient_rows = F.grouped_mm(gradient, weight, offs=group_offsets) if wants_input else None
    if adapter is None or lora_hidden is None or rows is None:
        return gradient_rows, None, None
    gradient_lora_hidden = F.grouped_mm(gradient, adapter.b.transpose(-2, -1), offs=group_offsets).mul_(adapter.scale)
    if gradient_rows is not None:
        gradient_rows.add_(F.grouped_mm(gradient_lora_hidden, adapter.a, offs=group_offsets))
    # an expert without rows is a product over nothing, which not every kernel writes as zeros
    empty = (group_offsets.diff(prepend=group_offsets.new_zeros(1)) == 0).view(-1, 1, 1)
    gradient_a = F.grouped_mm(gradient_lora_hidden.t(), rows, offs=group_offsets).masked_fill_(empty, 0)
    gradient_b = F.grouped_mm(lora_hidden.t(), gradient, offs=group_offsets).masked_fill_(empty, 0)
    rank = adapter.rank
    return gradient_rows, gradient_a[:, :rank].float(), gradient_b[:, :rank].float().mul_(adapter.scale)


def _copies(a: Tensor, b: Tensor, dtype: torch.dtype, experts: int, scale: float) -> Adapter:
    """PEFT's A [E * rank, in] and B [out, rank * E] by expert and in the weights' type."""
    by_expert_a = a.detach().to(dtype).view(experts, -1, a.shape[1])
    by_expert_b = b.detach().to(dtype).view(b.shape[0], -1, experts).permute(2, 1, 0).contiguous()
    rank = by_expert_a.shape[1]
    if not goes_in_turn(a.device):
        by_expert_a, by_expert_b = _aligned(by_expert_a), _aligned(by_expert_b)
    return Adapter(a=by_expert_a, b=by_expert_b, scale=scale, rank=rank)


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
        wrappers: dict[str, Any] = {}
        module: nn.Module = self
        while isinstance(module, ParamWrapper):
            wrappers[module.parameter_name] = module
            module = module.base_layer
        pairs = [(wrappers.get(name), getattr(module, name)) for name in EXPERT_STACKS]
        dtype, experts = pairs[0][1].dtype, pairs[0][1].shape[0]

        def copies() -> list[Adapter | None]:
            return [_adapter(wrapper, dtype, experts) for wrapper, _ in pairs]

        factors = [factor for wrapper, _ in pairs for factor in _factors(wrapper)]
        result: Tensor = _Experts.apply(x, *args, *(weight for _, weight in pairs), copies, *factors)
        return result


def _factors(wrapper: Any) -> tuple[Tensor | None, Tensor | None]:
    """PEFT's A and B of the active adapter."""
    if wrapper is None:
        return None, None
    adapter = wrapper.active_adapters[0]
    return wrapper.lora_A[adapter].weight, wrapper.lora_B[adapter].weight


def _adapter(wrapper: Any, dtype: torch.dtype, experts: int) -> Adapter | None:
    """The copies that products take. On a CPU they are kept until A or B is written to, which is in the next step.

    On a GPU, where the adapters of experts are gigabytes, they are made anew in each pass of a layer.
    """
    a, b = _factors(wrapper)
    if a is None or b is None:
        return None
    scale = wrapper.scaling[wrapper.active_adapters[0]]
    if not goes_in_turn(a.device):
        return _copies(a, b, dtype, experts, scale)
    made_of = id(a), id(b), a._version, b._version, dtype
    known = wrapper.__dict__.get("factored_copies")
    if known is None or known[0] != made_of:
        known = wrapper.__dict__["factored_copies"] = made_of, _copies(a, b, dtype, experts, scale)
    return cast(Adapter, known[1])


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
