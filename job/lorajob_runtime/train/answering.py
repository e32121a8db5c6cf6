"""Answers several prompts side by side with a loaded model: they are padded on the left to one length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteriaList

_NO_WINDOW = 1 << 20
"""For a model whose configuration names no limit."""


def answer(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    device: torch.device,
    stop_ids: Sequence[int],
    pad_id: int | None = None,
    max_new_tokens: int,
    stopping_criteria: Sequence[Any] = (),
    **options: Any,
) -> list[list[int]]:
    """The token ids of each prompt's answer, up to the one that ended it. `options` go to transformers' `generate`."""
    width = max(len(ids) for ids in prompts)
    pad = stop_ids[0] if stop_ids else pad_id or 0
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max(1, min(max_new_tokens, window(model) - width)),
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad,
        use_cache=True,
        stopping_criteria=StoppingCriteriaList(stopping_criteria),
        **options,
    )
    stops = set(stop_ids)
    return [list(itertools.takewhile(lambda token: token not in stops, row)) for row in output[:, width:].tolist()]


def window(model: Any) -> int:
    """Most tokens that a model takes, prompt and answer."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _NO_WINDOW)
