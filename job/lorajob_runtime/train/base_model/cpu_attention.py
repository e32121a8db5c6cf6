"""Causal attention within documents on a CPU: torch's flash kernel, a call a document, forwards and backwards.

One function for all documents: autograd would write a whole tensor of zeros for every slice. The kernel is slow in
bf16: on two kinds of Intel Xeon its backward pass took 1.2 to 6 times as long as in fp32, so there bf16 is widened
for it, a document at a time, and what is saved stays bf16 (docs/benchmarks.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONG = 512
"""Tokens of a document from which matrix units gain more in bf16 than the kernel loses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Widening:
    """Whether the kernel gets bf16 as fp32: forwards, and backwards for documents of fewer than so many tokens."""

    forward: bool = False
    backward_below: float = 0


AS_IT_IS = Widening()
FORWARD_AND_BACKWARD = Widening(forward=True, backward_below=float("inf"))
SHORT_BACKWARD = Widening(backward_below=LONG)


def best_widening() -> Widening:
    """The faster way for bf16 on this processor, as measured with matrix units for bf16 (AMX) and without."""
    return SHORT_BACKWARD if torch.cpu.get_capabilities().get("amx_bf16") else FORWARD_AND_BACKWARD


class _Documents(torch.autograd.Function):
    """query [1, heads, tokens, dim], key and value [1, key heads, tokens, dim] -> [1, tokens, heads, dim]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, bounds: Sequence[int], widening: Widening
    ) -> Tensor:
        output = query.new_empty((1, query.shape[2], query.shape[1], query.shape[3]))
        sums: list[Tensor] = []
        for start, end in itertools.pairwise(bounds):
            inputs = [_part(each, start, end, wide=widening.forward) for each in (query, key, value)]
            attended, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *inputs, 0.0, True, scale=scaling
            )
            output[:, start:end].copy_(attended.transpose(1, 2))
            sums.append(log_sum)
        ctx.save_for_backward(query, key, value, output, *sums)
        ctx.scaling, ctx.bounds, ctx.widening = scaling, bounds, widening
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *sums = ctx.saved_tensors
        results = [torch.empty_like(each) for each in (query, key, value)]
        for (start, end), log_sum in zip(itertools.pairwise(ctx.bounds), sums, strict=True):
            wide = end - start < ctx.widening.backward_below
            inputs = [_part(each, start, end, wide=wide) for each in (query, key, value)]
            gradient, attended = (_part(each.transpose(1, 2), start, end, wide=wide) for each in (gradients[0], output))
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient, *inputs, attended, log_sum, 0.0, True, scale=ctx.scaling
            )
            for result, part in zip(results, parts, strict=True):
                result[:, :, start:end].copy_(part)
        return *results, None, None, None


def _part(tensor: Tensor, start: int, end: int, *, wide: bool) -> Tensor:
    part = tensor[:, :, start:end]
    return part.float() if wide else part


def takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel does: on a CPU, all heads of one width."""
    return query.device.type == "cpu" and query.shape[-1] == key.shape[-1] == value.shape[-1]


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float, bounds: Sequence[int], widening: Widening
) -> Tensor:
    """query [1, heads, tokens, dim], key and value [1, key heads, tokens, dim] -> [1, tokens, heads, dim].

    `bounds` are where documents start, and the end of the last.
    """
    result: Tensor = _Documents.apply(query, key, value, scaling, bounds, widening)
    return result
