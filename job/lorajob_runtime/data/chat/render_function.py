"""A chat template as a function from messages to text, with what is the same for every conversation done once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lorajob_runtime.data.chat.tokenizer import Tokenizer
from lorajob_runtime.data.rows.conversation import Message

RenderFunction = Callable[..., str]
"""Messages without nulls, then `tools` and the template's own options, to text. Raises what the template raises."""


def render_function(tokenizer: Tokenizer, source: str) -> RenderFunction:
    """The function that has `source` written as the tokenizer's apply_chat_template does.

    A tokenizer with one of its own is asked itself.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs: RenderFunction = partial(tokenizer.apply_chat_template, chat_template=source, tokenize=False)
    if has_own(tokenizer):
        return theirs
    tokens = tokens_of(tokenizer, source)

    def ours(messages: Sequence[Message], **options: Any) -> str:
        if not messages:
            return theirs(messages, **options)
        texts, _ = render_jinja_template(conversations=[messages], chat_template=source, **{**tokens, **options})
        text: str = texts[0]
        return text

    return ours


def has_own(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer brings its own code for chat templates."""
    from transformers import PreTrainedTokenizerBase

    return getattr(tokenizer.apply_chat_template, "__func__", None) is not PreTrainedTokenizerBase.apply_chat_template


def tokens_of(tokenizer: Tokenizer, source: str) -> dict[str, str]:
    """The tokens that a template can read: those that it names."""
    return {name: token for name, token in tokenizer.special_tokens_map.items() if name in source}
