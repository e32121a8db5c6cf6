"""Attention within each document of a padding-free micro-batch: cost follows the documents, not their sum squared.

Registered with transformers under NAME. The model gets all documents end to end as one sequence, and their boundaries
as `cu_seq_lens_q`. Where torch's variable-length flash attention works it is taken, elsewhere an attention call a
document.
"""

from __future__ import annotations

import itertools
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "lorajob_documents"

UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""What a model may pass to its attention that changes the result and that this one does not do."""


def register() -> None:
    """Makes the name known to `from_pretrained(attn_implementation=…)`."""
    AttentionInterface.register(NAME, document_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def supports(config: Any) -> bool:
    """Whether a model's configuration asks for nothing but causal attention over the whole document."""
    text = config.get_text_config()
    layer_types = getattr(text, "layer_types", None) or ()
    if any(kind != "full_attention" for kind in layer_types):
        return False
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return False
    windowed = getattr(text, "sliding_window", None) is not None and getattr(text, "use_sliding_window", True)
    return not windowed or bool(layer_types)


def document_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, tokens, dim], key and value [1, key heads, tokens, dim] -> ([1, tokens, heads, dim], None).

    Without boundaries the whole sequence is one document. Raises ValueError for what it does not do.
    """
    if dropout or attention_mask is not None or any(others.get(name) is not None for name in UNSUPPORTED):
        raise ValueError(f"attention of {type(module).__name__} needs more than causal attention within documents")
    if _has_flash(query):
        return _flash_varlen(query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    bounds = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    documents = [
        F.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            is_causal=True,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        ).transpose(1, 2)
        for start, end in itertools.pairwise(bounds)
    ]
    return torch.cat(documents, dim=1), None


def _has_flash(query: Tensor) -> bool:
    """Whether the kernel takes it: 16-bit numbers, on a GPU of Ampere or newer."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _flash_varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, bounds: Tensor | None, longest: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    tokens = query.shape[2]
    if bounds is None or longest is None:
        bounds, longest = torch.tensor([0, tokens], dtype=torch.int32, device=query.device), tokens
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return cast(Tensor, output).unsqueeze(0)


def _no_mask(*_: Any, **__: Any) -> None:
    """The boundaries say all that a mask would."""
