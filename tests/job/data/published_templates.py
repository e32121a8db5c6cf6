"""Thirty published chat templates, and the five of the recipes. They are not shipped with the project."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from family_tokenizers import SHARED

_FOLDERS = (SHARED / "templates" / "wide", SHARED / "templates")
TEMPLATES = {path.stem: path for folder in _FOLDERS for path in sorted(folder.glob("*.jinja"))}

_CONTROL = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<(?:start|end)_of_turn>|<end_of_utterance>|<[a-z_]{1,20}\|>|<\|[a-z_]{1,20}>|\[/?INST\]"
    r"|\[e~\[|\]~b\]|\]~!b\[|\[gMASK\]|<sop>"
)
_BEGINS_AND_ENDS = {
    "<｜": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "<start_of_turn>": ("<bos>", "<eos>"),
    "<|start_header_id|>": ("<|begin_of_text|>", "<|eot_id|>"),
    "<|return|>": ("<|startoftext|>", "<|return|>"),
    "<|im_end|>": (None, "<|im_end|>"),
    "<|end|>": ("<s>", "<|endoftext|>"),
    "": ("<s>", "</s>"),
}
"""Sign of a template -> the tokens that begin and end a text there."""


def with_template(tokenizer: Any, path: Path) -> Any:
    """The tokenizer with a template, and with the template's control tokens."""
    source, tokenizer = path.read_text("utf-8"), copy.deepcopy(tokenizer)
    begin, end = next(pair for sign, pair in _BEGINS_AND_ENDS.items() if sign in source)
    tokenizer.add_special_tokens({"eos_token": end} | ({"bos_token": begin} if begin else {}))
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(_CONTROL.findall(source)))})
    tokenizer.chat_template = source
    return tokenizer
