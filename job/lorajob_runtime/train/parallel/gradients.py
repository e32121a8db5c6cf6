"""All gradients of the adapter as views into one flat buffer: one reduction, one norm, one scaling a step.

No DistributedDataParallel: an adapter's gradients are small, ranks hold different numbers of micro-batches (even none),
and one sum over one buffer is bit for bit the same after a restart, which re-built buckets are not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class FlatGradients:
    """Gives every parameter its part of one fp32 buffer as `.grad`; autograd adds into it."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        items = list(parameters)
        self.buffer: Tensor = torch.zeros(sum(item.numel() for item in items), device=items[0].device)
        start = 0
        for item in items:
            item.grad = self.buffer[start : start + item.numel()].view_as(item)
            start += item.numel()

    def zero(self) -> None:
        self.buffer.zero_()

    def sum_over_ranks(self) -> None:
        """Adds up what the ranks have; all of them hold the sum afterwards."""
        if dist.is_initialized():
            dist.all_reduce(self.buffer)

    def divide(self, by: int) -> None:
        """Makes a mean of a sum over so many targets."""
        self.buffer.div_(by)

    def clip(self, max_norm: float) -> float:
        """Scales the whole down to `max_norm` (0: never), as torch's clip_grad_norm_ does. Returns the norm before."""
        norm = torch.linalg.vector_norm(self.buffer)
        if max_norm > 0:
            self.buffer.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        return float(norm)
