"""Attention within each document of a padding-free micro-batch: cost follows the documents, not their sum squared.

Registered with transformers under NAME. The model gets all documents end to end as one sequence, and their boundaries
as `cu_seq_lens_q`. Where torch's variable-length flash attention works it is taken, elsewhere an attention call a
document, on a CPU by a function that may widen bf16 for it: that has a name of its own, so that a run can keep to it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from lorajob_runtime.train.base_model import cpu_attention
from lorajob_runtime.train.base_model.cpu_attention import Widening

NAME = "lorajob_documents"

WIDENED = {
    "attention_fp32": cpu_attention.FORWARD_AND_BACKWARD,
    "attention_fp32_backward": cpu_attention.SHORT_BACKWARD,
}
"""What a CPU may do with bf16, by the name that stands for it among a run's decisions."""

UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""What a model may pass to its attention that changes the result and that this one does not do."""


def register() -> None:
    """Makes the name known to `from_pretrained(attn_implementation=…)`, and chooses the kernel behind it.

    No mask function is registered with it: transformers then makes no mask, and need not ask the GPU whether the
    positions are those of several documents. torch would take cuDNN's kernel where there is one, which builds a graph,
    and keeps it, for every new set of shapes; micro-batches of documents practically never have the same ones twice.
    """
    AttentionInterface.register(NAME, document_attention)
    for name, widening in WIDENED.items():
        AttentionInterface.register(_implementation(name), functools.partial(document_attention, widening=widening))
    torch.backends.cuda.enable_cudnn_sdp(False)


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


def widened(model: Any) -> tuple[str, ...]:
    """The name of what gains most where a loaded model attends within documents, in bf16 and on a CPU; else none."""
    if model.config._attn_implementation != NAME or model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return ()
    best = cpu_attention.best_widening()
    return tuple(name for name, widening in WIDENED.items() if widening == best)


def widen(model: Any, names: Iterable[str]) -> None:
    """Has a model that attends within documents do it as one of these names says, if one does."""
    for name in WIDENED.keys() & set(names):
        if model.config._attn_implementation == NAME:
            model.set_attn_implementation(_implementation(name))


def _implementation(name: str) -> str:
    return f"{NAME}_{name}"


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
    document_bounds: Sequence[int] | None = None,
    widening: Widening = cpu_attention.AS_IT_IS,
    **others: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, tokens, dim], key and value [1, key heads, tokens, dim] -> ([1, tokens, heads, dim], None).

    Without boundaries the whole sequence is one document. `document_bounds` are those of `cu_seq_lens_q` as numbers of
    Python, which the GPU need not be asked for. Raises ValueError for what it does not do.
    """
    if dropout or attention_mask is not None or any(others.get(name) is not None for name in UNSUPPORTED):
        raise ValueError(f"attention of {type(module).__name__} needs more than causal attention within documents")
    if has_flash(query.device, query.dtype):
        return _flash_varlen(query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    bounds = document_bounds
    if bounds is None:
        bounds = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    if cpu_attention.takes(query, key, value):
        return cpu_attention.attend(query, key, value, scaling=scaling, bounds=bounds, widening=widening), None
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


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the flash kernel takes it: 16-bit numbers, on a GPU of Ampere or newer."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def backend(model: Any, dtype: torch.dtype) -> str:
    """What works out a loaded model's attention, for the run's report.

    flash: torch's kernel for documents of different lengths; documents: one call of scaled_dot_product_attention, or of
    the kernel behind it, a document; anything else is the name of transformers' own implementation, for a model that
    needs more.
    """
    name = str(model.config._attn_implementation)
    if not name.startswith(NAME):
        return name
    return "flash" if has_flash(model.device, dtype) else "documents"


def _flash_varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, bounds: Tensor | None, longest: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    tokens = query.shape[2]
    # torch before 2.15 has no such switch: its kernel takes fewer key heads as they are
    grouped: dict[str, Any] = {"enable_gqa": key.shape[1] != query.shape[1]} if _takes_gqa() else {}
    if bounds is None or longest is None:
        bounds, longest = torch.tensor([0, tokens], dtype=torch.int32, device=query.device), tokens
    output = varlen_attn(
        # not [0], whose gradient is copied into zeros
        query.squeeze(0).transpose(0, 1),
        key.squeeze(0).transpose(0, 1),
        value.squeeze(0).transpose(0, 1),
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        **grouped,
    )
    return cast(Tensor, output).unsqueeze(0)


@functools.cache
def _takes_gqa() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters
