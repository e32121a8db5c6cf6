"""The experts' forward and backward pass one expert after the other, for a CPU: what one works on stays in its caches.

The same products as the grouped ones of `experts`. Rows are gathered, multiplied, activated and added to their tokens
while they are few; nothing as large as all rows is written but what the backward pass needs. Experts go in the order of
their number, so each token's sum has one order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """Of one stack of weights: A [E, rank, in] and B [E, rank, out] in the weights' type, and their product's scale.

    Beyond `rank` there are zeros, where kernels want rows to begin at multiples of so many bytes.
    """

    a: Tensor
    b: Tensor
    scale: float
    rank: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Routed:
    """Rows sorted by their expert: each one's token [S] and weight [S, 1], and where the rows of each expert end."""

    tokens: Tensor
    weight: Tensor
    ends: list[int]

    def parts(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Every expert that has rows: its number, its rows, and their tokens."""
        for expert, (start, end) in enumerate(itertools.pairwise([0, *self.ends])):
            if start < end:
                yield expert, slice(start, end), self.tokens[start:end]


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What the backward pass needs: gate and up [S, 2I], and what each adapter's A made of its rows [S, rank]."""

    gate_up: Tensor
    lora_hidden1: Tensor | None
    lora_hidden2: Tensor | None


def forward(
    x: Tensor, routed: Routed, gate_up: Tensor, down: Tensor, first: Adapter | None, second: Adapter | None
) -> tuple[Tensor, Saved]:
    """x [T, H] -> [T, H] in fp32. gate_up [E, 2I, H] and down [E, H, I] are frozen."""
    rows_in_all = routed.tokens.numel()
    saved = Saved(
        gate_up=x.new_empty(rows_in_all, gate_up.shape[1]),
        lora_hidden1=None if first is None else x.new_empty(rows_in_all, first.a.shape[1]),
        lora_hidden2=None if second is None else x.new_empty(rows_in_all, second.a.shape[1]),
    )
    output = torch.zeros(x.shape, dtype=torch.float32)
    for expert, part, tokens in routed.parts():
        rows = x.index_select(0, tokens)
        products = torch.mm(rows, gate_up[expert].t(), out=saved.gate_up[part])
        if first is not None and saved.lora_hidden1 is not None:
            _add_adapter(products, rows, first, expert, saved.lora_hidden1[part])
        gate, up = products.chunk(2, dim=-1)
        hidden = F.silu(gate).mul_(up).mul_(routed.weight[part])
        result = hidden @ down[expert].t()
        if second is not None and saved.lora_hidden2 is not None:
            _add_adapter(result, hidden, second, expert, saved.lora_hidden2[part])
        output.index_add_(0, tokens, result.float())
    return output, saved


def _add_adapter(output: Tensor, rows: Tensor, adapter: Adapter, expert: int, lora_hidden: Tensor) -> None:
    torch.mm(rows, adapter.a[expert].t(), out=lora_hidden)
    output.addmm_(lora_hidden, adapter.b[expert], alpha=adapter.scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """Of x [T, H], of the rows' weights [S], and of each A [E, rank, in] and B [E, rank, out]; all in fp32."""

    x: Tensor | None
    weight: Tensor
    first: tuple[Tensor, Tensor] | None
    second: tuple[Tensor, Tensor] | None


def backward(
    gradient: Tensor,
    x: Tensor,
    routed: Routed,
    gate_up: Tensor,
    down: Tensor,
    first: Adapter | None,
    second: Adapter | None,
    saved: Saved,
    *,
    wants_x: bool,
) -> Gradients:
    """gradient [T, H] of the output, in the weights' type, as x is."""
    found = Gradients(
        x=torch.zeros(x.shape, dtype=torch.float32) if wants_x else None,
        weight=torch.empty(routed.tokens.numel(), dtype=routed.weight.dtype),
        first=_zeros(first),
        second=_zeros(second),
    )
    for expert, part, tokens in routed.parts():
        mine = gradient.index_select(0, tokens)
        weight = routed.weight[part]
        gate, up = saved.gate_up[part].chunk(2, dim=-1)
        gated = F.silu(gate)
        activated = gated * up
        thin = None
        if second is not None and found.second is not None and saved.lora_hidden2 is not None:
            lora_hidden = saved.lora_hidden2[part]
            thin = _thin_gradients(found.second, second, expert, mine, activated * weight, lora_hidden)
        through = _to_rows(mine, down, second, expert, thin)
        torch.sum(through * activated, dim=-1, dtype=found.weight.dtype, out=found.weight[part])
        through.mul_(weight)
        both = torch.empty_like(saved.gate_up[part])
        torch.mul(through, gated, out=both[:, gate.shape[1] :])
        both[:, : gate.shape[1]] = torch.ops.aten.silu_backward(through.mul_(up), gate)
        thin = None
        if first is not None and found.first is not None and saved.lora_hidden1 is not None:
            rows = x.index_select(0, tokens)
            thin = _thin_gradients(found.first, first, expert, both, rows, saved.lora_hidden1[part])
        if found.x is not None:
            found.x.index_add_(0, tokens, _to_rows(both, gate_up, first, expert, thin).float())
    return found


def _zeros(adapter: Adapter | None) -> tuple[Tensor, Tensor] | None:
    if adapter is None:
        return None
    return torch.zeros(adapter.a.shape, dtype=torch.float32), torch.zeros(adapter.b.shape, dtype=torch.float32)


def _thin_gradients(
    into: tuple[Tensor, Tensor], adapter: Adapter, expert: int, gradient: Tensor, rows: Tensor, lora_hidden: Tensor
) -> Tensor:
    """Writes the gradients of an expert's A and B; returns that of what A made of the rows [n, rank]."""
    thin = (gradient @ adapter.b[expert].t()).mul_(adapter.scale)
    into[0][expert] = thin.t() @ rows
    torch.mul(lora_hidden.t() @ gradient, adapter.scale, out=into[1][expert])
    return thin


def _to_rows(gradient: Tensor, weight: Tensor, adapter: Adapter | None, expert: int, thin: Tensor | None) -> Tensor:
    """The gradient of an expert's rows by that of its outputs."""
    result = gradient @ weight[expert]
    if adapter is not None and thin is not None:
        result.addmm_(thin, adapter.a[expert])
    return result
