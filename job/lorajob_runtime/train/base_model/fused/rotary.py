"""Rotary positions (rotate-half form, arXiv:2104.09864) for queries and keys as one function that saves angles only.

    (a, b) -> (a cos - b sin, b cos + a sin)        a, b: the first and second half of the numbers that are rotated

Numbers of a head behind those that have an angle stay as they are (partial rotary).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Rotate(torch.autograd.Function):
    """query and key [batch, heads, tokens, dim], cos and sin [batch, 1, tokens, rotated] -> query and key."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        return _rotated(query, cos, sin), _rotated(key, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        wanted = zip(gradients, ctx.needs_input_grad, strict=False)
        return *(_rotated_back(each, cos, sin) if needed else None for each, needed in wanted), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    output, half, width = _times_cos(x, cos)
    output[..., :half].addcmul_(x[..., half:width], sin[..., :half], value=-1)
    output[..., half:width].addcmul_(x[..., :half], sin[..., half:])
    return output


def _rotated_back(gradient: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    output, half, width = _times_cos(gradient, cos)
    output[..., :half].addcmul_(gradient[..., half:width], sin[..., half:])
    output[..., half:width].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
    return output


def _times_cos(x: Tensor, cos: Tensor) -> tuple[Tensor, int, int]:
    """x * cos where there are angles, in x's own layout; half of how many numbers that are, and how many."""
    width = cos.shape[-1]
    if width == x.shape[-1]:
        return x * cos, width // 2, width
    output = torch.empty_like(x)
    torch.mul(x[..., :width], cos, out=output[..., :width])
    output[..., width:].copy_(x[..., width:])
    return output, width // 2, width


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turned by the angles of each token. query, key [batch, heads, tokens, dim]; cos, sin [batch, 1, tokens, rotated].

    All are of one type; the angles need no gradient.
    """
    result: tuple[Tensor, Tensor] = _Rotate.apply(query, key, cos, sin)
    return result
