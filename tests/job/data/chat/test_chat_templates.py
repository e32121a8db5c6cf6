"""The models' own chat templates, against texts rendered from them independently."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.inference import prompt_ids, stop_ids
from lorajob_runtime.data.rows.conversation import Conversation
from lorajob_runtime.models.chat_families import detect

FAMILIES = {
    "qwen3": "qwen3",
    "qwen2.5": "qwen2.5",
    "glm-4.5": "glm-4.5",
    "minimax-m2": "minimax-m2",
    "hunyuan-a13b": "hunyuan",
}
ASKED = [{"role": "system", "content": "你是甄嬛"}, {"role": "user", "content": "你父亲是谁？"}]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_known_conversations_are_rendered_to_the_letter(family: str, shared: Path, qwen3: Any) -> None:
    lines = (shared / "templates" / "renders.jsonl").read_text("utf-8").splitlines()
    cases = [case for line in lines if (case := json.loads(line))["family"] == family]
    tokenizer = copy.copy(qwen3.tokenizer)
    tokenizer.chat_template = (shared / "templates" / f"{family}.jinja").read_text("utf-8")
    template = ChatTemplate(tokenizer, thinking=False)

    assert len(cases) == 6
    assert template.family.name == FAMILIES[family]
    for case in cases:
        assert template.text(case["messages"], **case["kwargs"]) == case["text"]


@pytest.mark.parametrize(
    ("family", "thinking"),
    [*((family, False) for family in FAMILIES), *((family, True) for family in FAMILIES if family != "qwen2.5")],
)
def test_the_prompt_is_the_known_text_of_its_thinking_mode(
    family: str, thinking: bool, shared: Path, qwen3: Any
) -> None:
    wanted = "prompt-think" if thinking else "prompt-nothink"
    lines = (shared / "templates" / "renders.jsonl").read_text("utf-8").splitlines()
    case = next(c for line in lines if (c := json.loads(line))["family"] == family and c["case"] == wanted)
    tokenizer = copy.copy(qwen3.tokenizer)
    tokenizer.chat_template = (shared / "templates" / f"{family}.jinja").read_text("utf-8")

    assert ChatTemplate(tokenizer, thinking=thinking).prompt(case["messages"]) == case["text"]


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        ("smollm2-135m", "smollm2"),
        ("qwen3-8b", "qwen3"),
        ("qwen2.5-coder-7b", "qwen25"),
        ("hunyuan-a13b", "hunyuan"),
        ("glm-4.5-air", "glm"),
        ("minimax-m2", "minimax"),
    ],
)
def test_the_catalog_says_of_family_and_thinking_what_the_template_does(
    entry: str, model: str, request: pytest.FixtureRequest
) -> None:
    template = ChatTemplate(request.getfixturevalue(model).tokenizer, thinking=False)

    known = catalog.get(entry)

    assert (known.family, known.thinking) == (template.family.name, template.thinking_mode)


def test_qwen3_without_thinking_is_asked_behind_an_empty_thought(qwen3: Any) -> None:
    assert prompt_ids(qwen3.tokenizer, ASKED, thinking=False)[-4:] == [151667, 271, 151668, 271]
    assert prompt_ids(qwen3.tokenizer, ASKED, thinking=True)[-3:] == [151644, 77091, 198]


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        ("qwen3", ["<|im_end|>", "<|endoftext|>"]),
        ("qwen25", ["<|im_end|>", "<|endoftext|>"]),
        ("smollm2", ["<|im_end|>", "<|endoftext|>"]),
        ("glm", ["<|user|>", "<|observation|>", "<|endoftext|>"]),
        ("minimax", ["[e~[", "<|endoftext|>"]),
        ("hunyuan", ["<|eos|>", "<|endoftext|>"]),
    ],
)
def test_generation_stops_at_what_training_ended_answers_with(
    model: str, ends: list[str], request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(model).tokenizer
    assert stop_ids(tokenizer) == tokenizer.convert_tokens_to_ids(ends)


def test_a_template_of_no_known_family_is_used_as_it_is(smollm2: Any) -> None:
    tokenizer = copy.copy(smollm2.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}### {{ m.role }}\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}"
    )
    template = ChatTemplate(tokenizer, thinking=False)

    messages = [*ASKED[1:], {"role": "assistant", "content": "甄远道"}]
    (answer,) = template.conversation(Conversation(messages=messages)).answers

    assert template.family.name == "unknown"
    assert (answer.before, answer.answer) == ("### user\n你父亲是谁？\n### assistant\n", "甄远道<|im_end|>")


def test_a_template_that_never_ends_an_answer_gets_the_tokenizers_end_token(smollm2: Any) -> None:
    tokenizer = copy.copy(smollm2.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )

    messages = [*ASKED, {"role": "assistant", "content": "甄远道"}]
    (answer,) = ChatTemplate(tokenizer, thinking=False).conversation(Conversation(messages=messages)).answers

    assert answer.answer == "甄远道<|im_end|>"


def test_a_prompt_that_opens_a_thought_is_answered_by_closing_it(qwen3: Any) -> None:
    tokenizer = copy.copy(qwen3.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )

    messages = [*ASKED, {"role": "assistant", "content": "A"}]
    (answer,) = ChatTemplate(tokenizer, thinking=True).conversation(Conversation(messages=messages)).answers

    assert answer.before.endswith("<|im_start|>assistant\n<think>\n")
    assert answer.answer == "\n</think>\n\nA<|im_end|>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('not for you') }}", "not for you"),
        ("{% if %}", "cannot render"),
        (
            "{% for m in messages %}<{{ m.content }}>{% endfor %}{{ 'go' if add_generation_prompt }}",
            "differently from its prompt",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_one_clear_line(
    template: str | None, reason: str, smollm2: Any
) -> None:
    tokenizer = copy.copy(smollm2.tokenizer)
    tokenizer.chat_template = template

    with pytest.raises(ModelError, match=reason) as caught:
        ChatTemplate(tokenizer, thinking=False)

    assert "\n" not in caught.value.message


def test_an_empty_template_text_is_of_no_family() -> None:
    assert detect("").name == "unknown"
