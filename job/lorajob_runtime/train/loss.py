"""Cross entropy of the target tokens only, without ever holding the logits of all of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorajob_runtime.models import activations


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross entropies of hidden [N, H] under a frozen head [V, H] and labels [N], in fp32.

    The head needs no gradient, so that of the hidden states is made in the forward pass, chunk by chunk, while the
    logits are there (the idea of Liger's fused linear cross entropy, arXiv:2410.10989).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = activations.loss_rows(weight.shape[0], on_gpu=hidden.is_cuda)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logarithms = _log_softmax(F.linear(hidden[part], weight))
            target = labels[part].unsqueeze(1)
            of_target = logarithms.gather(1, target)
            total -= of_target.sum()
            if gradient is not None:
                by_logit = _exponential(logarithms, weight.dtype)
                # one place in each row: nothing is added up in an order that could be another
                by_logit.scatter_(1, target, of_target.expm1_().to(weight.dtype))
                torch.mm(by_logit, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(gradients[0].to(gradient.dtype)), None, None


def _log_softmax(logits: Tensor) -> Tensor:
    """In fp32. A GPU's kernel reads 16-bit numbers; on a CPU they would stay there beside their copy."""
    if not logits.is_cuda:
        logits = logits.float()
    return F.log_softmax(logits, dim=-1, dtype=torch.float32)


def _exponential(logarithms: Tensor, dtype: torch.dtype) -> Tensor:
    """e to the power of `logarithms`, which may be written over, rounded to `dtype`."""
    if dtype != logarithms.dtype and logarithms.is_cuda:
        # one kernel that reads fp32 and writes the other; a CPU would make two passes of it, and take new memory
        return torch.exp(logarithms, out=logarithms.new_empty(logarithms.shape, dtype=dtype))
    return logarithms.exp_().to(dtype)


def head_loss(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross entropies (fp32 scalar): hidden [N, H], frozen head weight [V, H], labels [N]."""
    loss: Tensor = _HeadLoss.apply(hidden, weight, labels)
    return loss


def logits_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross entropies (fp32 scalar) of logits [N, V], for a model whose head is more than one matrix."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")
