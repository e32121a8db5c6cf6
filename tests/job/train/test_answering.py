"""Prompts of different lengths, answered side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorajob_runtime.train import answering

PROMPTS = [[5, 6, 7, 8, 9], [11, 12]]
WINDOW = 32


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=64, max_position_embeddings=WINDOW, **sizes)
    return LlamaForCausalLM(config).eval()


def answers(model: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    wanted = {"stop_ids": [], "max_new_tokens": 6, "do_sample": False} | options
    with torch.no_grad():
        return answering.answer(model, prompts, device=torch.device("cpu"), **wanted)


def test_answers_are_those_that_each_prompt_gets_alone(model: Any) -> None:
    together = answers(model, PROMPTS)

    assert [len(answer) for answer in together] == [6, 6]
    assert together == [answers(model, [prompt])[0] for prompt in PROMPTS]


def test_an_answer_ends_before_the_first_stop_token(model: Any) -> None:
    whole = answers(model, PROMPTS)[0]
    stop = whole[3]

    assert answers(model, PROMPTS, stop_ids=[stop])[0] == whole[: whole.index(stop)]


def test_an_answer_ends_at_the_models_window(model: Any) -> None:
    [answer] = answers(model, [[1] * (WINDOW - 3)], max_new_tokens=50)

    assert len(answer) == 3
    assert answering.window(model) == WINDOW
