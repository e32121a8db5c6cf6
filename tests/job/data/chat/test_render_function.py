"""A template is written as the tokenizer's own apply_chat_template writes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lorajob_runtime.data.chat.chat_template import ChatTemplate

ASKED = {"role": "user", "content": "what is it"}
ANSWERED = {"role": "assistant", "content": "a lamp"}
TOOL = {"type": "function", "function": {"name": "light", "description": "lights", "parameters": {"type": "object"}}}
NAMES_TOKENS = "{{ eos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("messages", [[ASKED], [ASKED, ANSWERED], [ASKED, ANSWERED, ASKED]])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_the_text_is_that_of_the_tokenizers_own_method(
    smollm2: Any, qwen3: Any, messages: list[dict[str, Any]], tools: Any, add_generation_prompt: bool
) -> None:
    for tokenizer in (smollm2.tokenizer, qwen3.tokenizer):
        options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
        own = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        assert ChatTemplate(tokenizer, thinking=False).text(messages, **options) == own


def test_tokens_that_a_template_names_are_there(smollm2: Any) -> None:
    tokenizer = copy.deepcopy(smollm2.tokenizer)
    tokenizer.chat_template = NAMES_TOKENS
    end = tokenizer.eos_token

    assert ChatTemplate(tokenizer, thinking=False).text([ASKED]) == f"{end}user: what is it{end}"


def test_a_null_is_no_key_for_a_template(smollm2: Any) -> None:
    template = ChatTemplate(smollm2.tokenizer, thinking=False)

    assert template.text([ASKED | {"name": None}, ANSWERED]) == template.text([ASKED, ANSWERED])


def test_a_tokenizer_with_a_method_of_its_own_is_asked_itself(smollm2: Any) -> None:
    tokenizer = copy.deepcopy(smollm2.tokenizer)
    theirs = tokenizer.apply_chat_template

    class Own(type(tokenizer)):  # type: ignore[misc]
        def apply_chat_template(self, *given: Any, **options: Any) -> str:
            return "<|im_start|>own\n" + str(theirs(*given, **options))

    tokenizer.__class__ = Own

    assert ChatTemplate(tokenizer, thinking=False).text([ASKED]).startswith("<|im_start|>own\n")
