"""Thoughts in the data: trained as each template writes them, left out where thinking is off, and said."""

from __future__ import annotations

from typing import Any

import pytest
from family_texts import ALPACA, CHATML, QWEN25_SYSTEM, Expect

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.data.chat.adapt_messages import NO_FORM, SWITCHED_OFF
from lorajob_runtime.data.chat.chat_template import EMPTY_THOUGHT


@pytest.mark.parametrize("name", ["smollm2", "qwen25"])
def test_thinking_asked_of_a_template_without_it_is_refused(
    name: str, request: pytest.FixtureRequest, prepared: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(request.getfixturevalue(name), ALPACA, thinking=True)

    assert caught.value.path == "data.thinking"
    assert "chat template" in caught.value.message


def test_a_thought_in_the_data_is_left_out_and_noted_when_thinking_is_off(
    qwen3: Any, prepared: Any, expect_sequences: Expect
) -> None:
    rows = [{"instruction": "Q", "output": "<think>\nhm\n</think>\n\nA"}]
    off = prepared(qwen3, rows)
    expect_sequences(
        qwen3, off.train, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A<|im_end|>⟧"
    )
    on = prepared(qwen3, rows, thinking=True)
    assert off.report.notes == (f"1 row: {SWITCHED_OFF}",)
    expect_sequences(
        qwen3, on.train, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦<think>\nhm\n</think>\n\nA<|im_end|>⟧"
    )


THOUGHT_APART = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A", "reasoning_content": "hm"},
]


@pytest.mark.parametrize(
    ("name", "thinking", "text"),
    [
        ("qwen3", True, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦<think>\nhm\n</think>\n\nA<|im_end|>⟧"),
        ("glm", True, "[gMASK]<sop><|user|>\nQ<|assistant|>⟦\n<think>hm</think>\nA<|user|>⟧"),
        ("hunyuan", True, "<|startoftext|>Q<|extra_0|>⟦<think>\nhm\n</think>\nA<|eos|>⟧"),
        (
            "minimax",
            False,
            "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nQ[e~[\n"
            "]~b]ai\n<think>\n⟦hm\n</think>\n\nA[e~[⟧",
        ),
    ],
)
def test_a_thought_apart_from_the_answer_is_trained_as_each_template_writes_it(
    name: str, thinking: bool, text: str, request: pytest.FixtureRequest, prepared: Any, expect_sequences: Expect
) -> None:
    model = request.getfixturevalue(name)
    expect_sequences(model, prepared(model, [{"messages": THOUGHT_APART}], thinking=thinking).train, text)


def test_a_thought_that_a_template_has_no_form_for_is_left_out_and_noted(
    qwen25: Any, prepared: Any, expect_sequences: Expect
) -> None:
    result = prepared(qwen25, [{"messages": THOUGHT_APART}])
    expect_sequences(qwen25, result.train, QWEN25_SYSTEM + CHATML.format("Q", "A"))
    assert result.report.notes == (f"1 row: {NO_FORM}",)


def test_minimax_trains_a_thought_inside_the_one_its_prompt_opens(
    minimax: Any, prepared: Any, expect_sequences: Expect
) -> None:
    result = prepared(minimax, [{"instruction": "Q", "output": "<think>hm</think>A"}])
    assert result.report.notes == ()
    expect_sequences(
        minimax,
        result.train,
        "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nQ[e~[\n]~b]ai\n<think>\n⟦hm\n</think>\n\nA[e~[⟧",
    )


def test_it_is_said_of_rows_without_a_thought_that_minimax_thinks_before_every_answer(
    minimax: Any, prepared: Any
) -> None:
    assert prepared(minimax, ALPACA * 2).report.notes == (f"2 rows: {EMPTY_THOUGHT}",)
