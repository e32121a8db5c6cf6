"""Thirty published chat templates, and the five of the recipes, with every kind of conversation.

They are not shipped with the project: template_kinds.py has one small template of each kind among them.
"""

from __future__ import annotations

from typing import Any

import pytest
from published_templates import TEMPLATES, with_template
from right_or_said import CALLS, TALKS, conversation, encoded, wrongs

from family_tokenizers import NOT_THERE
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.rows.conversation import RowError


@pytest.fixture(scope="module")
def tokenizers(qwen25: Any) -> Any:
    """Makes a tokenizer of Qwen2.5's vocabulary, and the control tokens of a template, with that template."""

    return lambda path: with_template(qwen25.tokenizer, path)


def _encoders(tokenizer: Any) -> list[Encoder]:
    encoders = [Encoder(tokenizer, thinking=thinking) for thinking in (False, True)]
    try:
        encoders[1].template  # noqa: B018 - asked for what it raises
    except ConfigError:
        return encoders[:1]
    return encoders


_ALTERNATING = {"two answers", "greeting", "greeting behind a system prompt", "late system turn"}
_ONE_BY_ONE = {"one call after the other", "words, then a call"}
_CANNOT = {
    "cohere": _ALTERNATING | _ONE_BY_ONE,
    "cohere2": _ALTERNATING | _ONE_BY_ONE,
    "gemma": _ALTERNATING | _ONE_BY_ONE,
    "gemma3": _ALTERNATING | _ONE_BY_ONE,
    "gptoss": {"two calls"},
    "llama3_1": {"two calls"},
    "llama3_2": {"two calls"},
    # makes answers behind answers one, and with thinking on opens a thought behind results that it never shows
    "diffusion_gemma": {"two answers", *CALLS},
    "qwen3_5_nothink": {"late system turn"},
    "qwen3_5_think": {"late system turn"},
    "qwen3_6": {"late system turn"},
}
"""Template -> the conversations that it refuses or writes otherwise than its prompt, some or all of them."""


@pytest.mark.skipif(not TEMPLATES, reason=NOT_THERE)
@pytest.mark.parametrize("name", TEMPLATES or ["none"])
def test_published_templates_train_every_conversation_as_it_is_or_say_what_is_not(name: str, tokenizers: Any) -> None:
    for encoder in _encoders(tokenizers(TEMPLATES[name])):
        found, dropped = {}, {}
        for talk in (*TALKS, *CALLS):
            result = encoded(encoder, conversation(talk))
            if isinstance(result, RowError):
                dropped[talk] = result.reason
            elif wrong := wrongs(encoder, conversation(talk)):
                found[talk] = wrong
        assert found == {}
        assert dropped.keys() <= _CANNOT.get(name, set()), dropped
