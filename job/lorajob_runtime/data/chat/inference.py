"""What inference needs of a chat template: the prompt as token ids, and the ids at which an answer ends."""

from __future__ import annotations

from collections.abc import Sequence

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.text import truncate
from lorajob_runtime.data.chat.adapt_messages import Tools
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.tokenizer import Tokenizer, encode, token_id
from lorajob_runtime.data.rows.conversation import Message


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message], thinking: bool, tools: Tools = None) -> list[int]:
    """Token ids that inference sends to have the next answer: what training put before it.

    Raises ModelError, and ConfigError for thinking that the model has no mode for.
    """
    template = ChatTemplate(tokenizer, thinking=thinking, moment=None)
    try:
        prompt = template.prompt(messages, tools)
    except Exception as error:
        raise ModelError(f"the model's chat template refuses the conversation: {truncate(error, 160)}") from error
    return encode(tokenizer, [prompt])[0]


def stop_ids(tokenizer: Tokenizer) -> list[int]:
    """Token ids at which generation ends. Without a chat template: the tokenizer's end token."""
    if not tokenizer.chat_template:
        tokens = [tokenizer.eos_token] if tokenizer.eos_token else []
    else:
        tokens = ChatTemplate(tokenizer, thinking=False).stop_tokens()
    ids = (token_id(tokenizer, token) for token in tokens)
    return [index for index in ids if index is not None]
