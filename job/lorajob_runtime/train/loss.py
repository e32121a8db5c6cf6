"""Cross entropy of the target tokens only, without ever holding the logits of all of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorajob_runtime.models.activations import LOSS_CHUNK_ELEMENTS


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross entropies of hidden [N, H] under a frozen head [V, H] and labels [N], in fp32.

    The head needs no gradient, so that of the hidden states is made in the forward pass, chunk by chunk, while the
    logits are there (the idea of Liger's fused linear cross entropy, arXiv:2410.10989).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, LOSS_CHUNK_ELEMENTS // weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = F.linear(hidden[part], weight).float()
            log_partition = logits.logsumexp(dim=-1, keepdim=True)
            target = labels[part].unsqueeze(1)
            total += (log_partition - logits.gather(1, target)).sum()
            if gradient is not None:
                probabilities = logits.sub_(log_partition).exp_()
                probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))
                torch.mm(probabilities.to(weight.dtype), weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(gradients[0].to(gradient.dtype)), None, None


def head_loss(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross entropies (fp32 scalar): hidden [N, H], frozen head weight [V, H], labels [N]."""
    loss: Tensor = _HeadLoss.apply(hidden, weight, labels)
    return loss


def logits_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross entropies (fp32 scalar) of logits [N, V], for a model whose head is more than one matrix."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")
