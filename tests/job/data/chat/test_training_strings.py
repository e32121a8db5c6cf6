"""Every dataset form and model family: tokens and loss mask equal to hand-written text, the trained part in ⟦ and ⟧."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from family_texts import ALPACA, CHATML, QWEN25_SYSTEM, SMOLLM2_SYSTEM, Expect
from hypothesis import given, settings
from hypothesis import strategies as st
from marking import marked

from lorajob_runtime.data.chat.inference import prompt_ids
from lorajob_runtime.data.chat.tokenizer import start_ids
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text

TWO_ROUNDS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "甄嬛。"},
]

CHATML_ASKED = "<|im_start|>user\n你父亲是谁？<|im_end|>\n<|im_start|>assistant\n"

SINGLE = {
    "smollm2": SMOLLM2_SYSTEM + CHATML_ASKED + "⟦家父是甄远道。<|im_end|>⟧",
    "qwen25": QWEN25_SYSTEM + CHATML_ASKED + "⟦家父是甄远道。<|im_end|>⟧",
    "qwen3": CHATML_ASKED + "<think>\n\n</think>\n\n⟦家父是甄远道。<|im_end|>⟧",
    "glm": "[gMASK]<sop><|user|>\n你父亲是谁？/nothink<|assistant|>\n<think></think>⟦\n家父是甄远道。<|user|>⟧",
    "minimax": (
        "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\n你父亲是谁？[e~[\n"
        "]~b]ai\n<think>\n⟦\n</think>\n\n家父是甄远道。[e~[⟧"
    ),
    "hunyuan": "<|startoftext|>你父亲是谁？<|extra_0|><think>\n\n</think>\n⟦家父是甄远道。<|eos|>⟧",
}

WITH_SYSTEM = {
    "smollm2": "<|im_start|>system\nS<|im_end|>\n" + CHATML_ASKED + "⟦家父是甄远道。<|im_end|>⟧",
    "qwen25": "<|im_start|>system\nS<|im_end|>\n" + CHATML_ASKED + "⟦家父是甄远道。<|im_end|>⟧",
    "qwen3": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n你父亲是谁？<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦家父是甄远道。<|im_end|>⟧"
    ),
    "glm": "[gMASK]<sop><|system|>\nS<|user|>\n你父亲是谁？/nothink<|assistant|>"
    "\n<think></think>⟦\n家父是甄远道。<|user|>⟧",
    "minimax": (
        "]~!b[]~b]system\nS[e~[\n]~b]user\n你父亲是谁？[e~[\n]~b]ai\n<think>\n⟦\n</think>\n\n家父是甄远道。[e~[⟧"
    ),
    "hunyuan": "<|startoftext|>S<|extra_4|>你父亲是谁？<|extra_0|><think>\n\n</think>\n⟦家父是甄远道。<|eos|>⟧",
}

THINKING_ON = {
    "qwen3": CHATML_ASKED + "⟦<think>\n\n</think>\n\n家父是甄远道。<|im_end|>⟧",
    "glm": "[gMASK]<sop><|user|>\n你父亲是谁？<|assistant|>⟦\n<think></think>\n家父是甄远道。<|user|>⟧",
    "minimax": SINGLE["minimax"],
    "hunyuan": "<|startoftext|>你父亲是谁？<|extra_0|>⟦家父是甄远道。<|eos|>⟧",
}

MULTI_TURN = {
    "smollm2": (
        SMOLLM2_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n⟦甄嬛。<|im_end|>⟧",
    ),
    "qwen25": (
        QWEN25_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n⟦甄嬛。<|im_end|>⟧",
    ),
    # The thought goes from the history: each answer stands behind what inference sends for it.
    "qwen3": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦Hello.<|im_end|>⟧",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦甄嬛。<|im_end|>⟧",
    ),
    "glm": (
        "[gMASK]<sop><|user|>\nHi/nothink<|assistant|>\n<think></think>⟦\nHello.<|user|>⟧"
        "\nWho are you?/nothink<|assistant|>\n<think></think>⟦\n甄嬛。<|user|>⟧",
    ),
    "minimax": (
        "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nHi[e~[\n"
        "]~b]ai\n<think>\n⟦\n</think>\n\nHello.[e~[⟧",
        "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nHi[e~[\n]~b]ai\nHello.[e~[\n"
        "]~b]user\nWho are you?[e~[\n]~b]ai\n<think>\n⟦\n</think>\n\n甄嬛。[e~[⟧",
    ),
    "hunyuan": (
        "<|startoftext|>Hi<|extra_0|><think>\n\n</think>\n⟦Hello.<|eos|>⟧",
        "<|startoftext|>Hi<|extra_0|>Hello.<|eos|><|startoftext|>Who are you?<|extra_0|>"
        "<think>\n\n</think>\n⟦甄嬛。<|eos|>⟧",
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_an_alpaca_row_trains_the_answer_and_its_end_behind_the_models_prompt(
    name: str, request: pytest.FixtureRequest, prepared: Any, expect_sequences: Expect
) -> None:
    model = request.getfixturevalue(name)
    expect_sequences(model, prepared(model, ALPACA).train, SINGLE[name])


@pytest.mark.parametrize("name", WITH_SYSTEM)
def test_the_system_prompt_of_the_spec_stands_where_the_template_puts_it(
    name: str, request: pytest.FixtureRequest, prepared: Any, expect_sequences: Expect
) -> None:
    model = request.getfixturevalue(name)
    expect_sequences(model, prepared(model, ALPACA, system="S").train, WITH_SYSTEM[name])


@pytest.mark.parametrize("name", THINKING_ON)
def test_with_thinking_on_the_thought_is_the_answers_part(
    name: str, request: pytest.FixtureRequest, prepared: Any, expect_sequences: Expect
) -> None:
    model = request.getfixturevalue(name)
    expect_sequences(model, prepared(model, ALPACA, thinking=True).train, THINKING_ON[name])


@pytest.mark.parametrize("name", MULTI_TURN)
def test_every_answer_of_a_conversation_is_trained_once(
    name: str, request: pytest.FixtureRequest, prepared: Any, expect_sequences: Expect
) -> None:
    model = request.getfixturevalue(name)
    expect_sequences(model, prepared(model, [{"messages": TWO_ROUNDS}]).train, *MULTI_TURN[name])


@pytest.mark.parametrize(
    ("name", "thinking"), [*((name, False) for name in MULTI_TURN), *((name, True) for name in THINKING_ON)]
)
def test_before_each_answer_stands_what_inference_sends_token_for_token(
    name: str, thinking: bool, request: pytest.FixtureRequest, prepared: Any
) -> None:
    model = request.getfixturevalue(name)
    rows = prepared(model, [{"messages": TWO_ROUNDS}], thinking=thinking).train
    trained = []
    for ids, targets in (rows.row(index) for index in range(len(rows))):
        starts = [at for at in range(1, len(ids)) if targets[at] and not targets[at - 1]]
        trained += [ids[:at].tolist() for at in starts]

    assert trained == [prompt_ids(model.tokenizer, TWO_ROUNDS[:turns], thinking) for turns in (1, 3)]


_said = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize("name", ["smollm2", "qwen3"])
@settings(max_examples=60)
@given(
    rounds=st.lists(st.tuples(_said, _said.filter(lambda text: "think>" not in text)), min_size=1, max_size=3),
    system=st.none() | _said,
)
def test_exactly_the_answers_and_their_ends_are_trained_whatever_is_said(
    name: str, rounds: list[tuple[str, str]], system: str | None, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name).tokenizer
    messages = [{"role": "system", "content": system}] if system else []
    prompts, answers = [], []
    for question, answer in rounds:
        messages.append({"role": "user", "content": question})
        prompts.append(prompt_ids(tokenizer, messages, thinking=False))
        messages.append({"role": "assistant", "content": answer})
        # Qwen3's template drops line breaks before an answer.
        said = answer.lstrip("\n") if name == "qwen3" else answer
        answers.append(tokenizer(said + "<|im_end|>", add_special_tokens=False)["input_ids"])

    (encoded,) = Encoder(tokenizer, thinking=False).rows([Conversation(messages=messages)])

    assert not isinstance(encoded, RowError)
    found = []
    for ids, targets in encoded.sequences:
        edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(ids)]
        found += [(ids[:a].tolist(), ids[a:b].tolist()) for a, b in pairwise(edges) if targets[a]]
    assert found == list(zip(prompts, answers, strict=True))


FORMS = {
    "alpaca": {"instruction": "Q", "input": "", "output": "A"},
    "alpaca without input": {"instruction": "Q", "output": "A"},
    "qa": {"id": 7, "input": "Q", "output": "A"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    "a bare list of turns": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
    "messages": {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    "messages in parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
        ]
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_conversation_gives_the_same_tokens(
    form: str, smollm2: Any, prepared: Any, expect_sequences: Expect
) -> None:
    rows = prepared(smollm2, [FORMS[form], FORMS[form]]).train
    expect_sequences(smollm2, rows, *[SMOLLM2_SYSTEM + CHATML.format("Q", "A")] * 2)


def test_an_alpaca_row_may_bring_its_own_system_prompt_and_history(
    smollm2: Any, prepared: Any, expect_sequences: Expect
) -> None:
    row = {"instruction": "Q2", "input": "", "output": "A2", "system": "Mine", "history": [["Q1", "A1"]]}
    expect_sequences(
        smollm2,
        prepared(smollm2, [row], system="S").train,
        "<|im_start|>system\nMine<|im_end|>\n" + CHATML.format("Q1", "A1") + "\n" + CHATML.format("Q2", "A2"),
    )


def test_the_columns_of_the_law_recipe_make_the_instruction_the_system_prompt(
    smollm2: Any, prepared: Any, expect_sequences: Expect
) -> None:
    columns = {"system": "instruction", "instruction": "input", "output": "output"}
    row = {"instruction": "你是一个法律专家", "input": "Q", "output": "A"}
    result = prepared(smollm2, [row], columns=columns)
    expect_sequences(
        smollm2, result.train, "<|im_start|>system\n你是一个法律专家<|im_end|>\n" + CHATML.format("Q", "A")
    )
    assert result.report.verdict == "detected as alpaca, system = instruction, user = input, answer = output"


def test_columns_of_any_name_can_be_mapped(smollm2: Any, prepared: Any, expect_sequences: Expect) -> None:
    rows = [{"question": "Q", "answer": "A"}]
    result = prepared(smollm2, rows, columns={"input": "question", "output": "answer"})
    expect_sequences(smollm2, result.train, SMOLLM2_SYSTEM + CHATML.format("Q", "A"))
    assert result.report.format == "qa"


def test_a_text_row_is_trained_whole_with_the_end_token(qwen3: Any, prepared: Any, expect_sequences: Expect) -> None:
    result = prepared(qwen3, [{"text": "<|im_start|>Once upon a time"}])
    expect_sequences(qwen3, result.train, "<|im_start|>⟦Once upon a time<|im_end|>⟧")
    assert result.report.template_family == "none"


def test_the_first_token_of_a_text_is_no_target(smollm2: Any, prepared: Any) -> None:
    rows = prepared(smollm2, [{"text": "Once upon a time"}]).train
    ids, targets = rows.row(0)
    assert smollm2.tokenizer.decode(ids.tolist()) == "Once upon a time<|im_end|>"
    assert targets.tolist() == [False] + [True] * (len(ids) - 1)


_TEMPLATED = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Once", "<s>⟦Once</s>⟧"),
        ("<s>Once", "<s>⟦Once</s>⟧"),
        ("<s>Once</s>", "<s>⟦Once</s>⟧"),
        ("Once</s>\n", "<s>⟦Once</s>\n⟧"),
        ("<s><s>Once", "<s><s>⟦Once</s>⟧"),
        # what ends a turn of the chat template ends a text, too
        (_TEMPLATED, f"<s>⟦{_TEMPLATED}⟧"),
        (f"<s>{_TEMPLATED}\n", f"<s>⟦{_TEMPLATED}\n⟧"),
    ],
)
def test_a_text_that_has_its_own_begin_and_end_gets_no_second_ones(text: str, expected: str, smollm2: Any) -> None:
    tokenizer = _with_begin_and_end(smollm2.tokenizer)

    (encoded,) = Encoder(tokenizer, thinking=False).rows([Text(text)])

    assert not isinstance(encoded, RowError)
    ((ids, targets),) = encoded.sequences
    assert (ids.tolist(), targets.tolist()) == marked(tokenizer, expected)


def _with_begin_and_end(chatml: Any) -> Any:
    """A tokenizer that puts <s> before every text and whose texts end in </s>, with a ChatML template."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(chatml)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    begin = ("<s>", tokenizer.convert_tokens_to_ids("<s>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[begin])
    assert start_ids(tokenizer) == [begin[1]]
    return tokenizer


def test_what_follows_the_last_answer_is_left_out_and_noted(
    smollm2: Any, prepared: Any, expect_sequences: Expect
) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}, {"from": "human", "value": "And?"}]
    result = prepared(smollm2, [{"conversations": turns}])
    expect_sequences(smollm2, result.train, SMOLLM2_SYSTEM + CHATML.format("Q", "A"))
    assert result.report.notes == ("1 row: what follows the last answer is left out",)


def test_an_empty_system_prompt_is_none(hunyuan: Any, prepared: Any, expect_sequences: Expect) -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows = prepared(hunyuan, [{"messages": turns}]).train
    expect_sequences(hunyuan, rows, "<|startoftext|>Q<|extra_0|><think>\n\n</think>\n⟦A<|eos|>⟧")


def test_an_answer_that_begins_with_a_line_break_keeps_the_tokens_that_inference_sees(
    smollm2: Any, prepared: Any
) -> None:
    rows = prepared(smollm2, [{"instruction": "Q", "output": "\n\nA"}]).train
    ids, targets = rows.row(0)
    before = ids[: int(targets.argmax())].tolist()
    assert before == prompt_ids(smollm2.tokenizer, [{"role": "user", "content": "Q"}], thinking=False)
