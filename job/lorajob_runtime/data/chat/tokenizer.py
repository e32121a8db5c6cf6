"""A model's tokenizer: loading it from local files, and encoding many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.text import truncate
from lorajob_runtime.data.chat import tiktoken_tokenizer
from lorajob_runtime.data.chat.reasoning import MARKS
from lorajob_runtime.models import config_files, remote_code

Tokenizer = Any
"""A tokenizer of transformers, which has no types of its own."""


def load_tokenizer(model_path: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer in a folder, by transformers' own class where there is one, else by trusted code.

    Raises ModelError.
    """
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    code = remote_code.reference(config_files.tokenizer_config(model_path), "AutoTokenizer")
    try:
        if (known := tiktoken_tokenizer.found(model_path)) is not None:
            return tiktoken_tokenizer.load(model_path, known)
        return transformers.AutoTokenizer.from_pretrained(
            str(model_path), trust_remote_code=trust_remote_code and needs_code(model_path), local_files_only=True
        )
    except ModelError:
        raise
    except Exception as error:
        reason, hint = truncate(error, 160), ""
        if code is not None and not trust_remote_code:
            reason = f"it needs {remote_code.file_of(code)} of its repository, which may not run"
            hint = "model.trustRemoteCode runs that code, at the revision that you have read"
        raise ModelError(f"no tokenizer can be loaded from {model_path}: {reason}", hint=hint) from error


def needs_code(folder: Path) -> bool:
    """Whether the class of the tokenizer in a folder is not transformers' own, but code that lies beside it.

    Raises ModelError for code in another repository.
    """
    import transformers

    config = config_files.tokenizer_config(folder)
    code = remote_code.reference(config, "AutoTokenizer")
    return code is not None and not hasattr(transformers, str(config.get("tokenizer_class")))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing added in front or behind: what a chat template's text becomes at inference."""
    if not texts:
        return []
    if getattr(tokenizer, "is_fast", False):
        backend = tokenizer.backend_tokenizer
        # A tokenizer.json may ask for either; transformers resets them on each of its calls, too.
        backend.no_truncation()
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of token ids with control tokens shown."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def decode_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of an answer's ids without control tokens, but with the marks of thoughts where those are ones."""
    special = set(tokenizer.all_special_ids)
    marks = {index: mark for mark in MARKS if (index := token_id(tokenizer, mark)) in special}
    text, start = "", 0
    for end in [*(place for place, token in enumerate(ids) if token in marks), len(ids)]:
        text += tokenizer.decode(list(ids[start:end]), skip_special_tokens=True)
        text += marks.get(ids[end], "") if end < len(ids) else ""
        start = end + 1
    return text


def token_id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of a token that is one in this vocabulary, else None."""
    ids = encode(tokenizer, [token])[0]
    return ids[0] if len(ids) == 1 else None


def added_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """The tokens outside the learned vocabulary: control tokens, and marks like <think>."""
    return {int(index): str(token) for index, token in tokenizer.added_tokens_decoder.items()}


def control_tokens(tokenizer: Tokenizer) -> list[str]:
    """The tokens that steer the model. In a dataset's text they would open or end turns."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer itself puts before a plain text: a begin token, or nothing."""
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and list(tokenizer("")["input_ids"])[:1] == [begin] else []
