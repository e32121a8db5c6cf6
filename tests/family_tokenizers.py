"""The five families' tokenizers with their real chat templates. They are not shipped with the project."""

from __future__ import annotations

import base64
import json
import lzma
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Real datasets, templates and tokenizers, beside the repository."""

NOT_THERE = f"{SHARED} is not there: real tokenizers and datasets are not shipped with the project"
"""Why a test that needs them is skipped."""

_OWN = ("qwen3", "qwen2.5", "hunyuan")

_CONTROL = {
    "glm-4.5": ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "/nothink"],
    "minimax-m2": ["]~!b[", "]~b]", "[e~["],
}
"""Families whose own vocabulary is not to be had: their control tokens and template go over Qwen3's vocabulary."""

_ENDS = {"glm-4.5": "<|endoftext|>", "minimax-m2": "[e~["}


def write(family: str, folder: Path) -> Path:
    """Puts a family's tokenizer into a folder, which is made where it is missing. FileNotFoundError without SHARED."""
    folder.mkdir(parents=True, exist_ok=True)
    source = SHARED / "tokenizers" / (family if family in _OWN else "qwen3")
    (folder / "tokenizer.json").write_bytes(lzma.decompress((source / "tokenizer.json.xz").read_bytes()))
    (folder / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    if family not in _OWN:
        tokenizer = load(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": _CONTROL[family]})
        tokenizer.eos_token = _ENDS[family]
        tokenizer.chat_template = (SHARED / "templates" / f"{family}.jinja").read_text("utf-8")
        tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    """The tokenizer in a folder, as transformers loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def as_code(folder: Path) -> Path:
    """Makes Hunyuan's tokenizer what its repository has: byte strings by rank, and code, which must not run here."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    stored = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ranked = (bytes(byte_of[letter] for letter in token) for token in sorted(stored, key=stored.__getitem__))
    write_tiktoken(folder, list(ranked))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    code = {"tokenizer_class": "HYTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_hy.HYTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | code))
    (folder / "tokenization_hy.py").write_text("raise RuntimeError('this code has run')")
    (folder / "tokenizer.json").unlink()
    return folder


def write_tiktoken(folder: Path, ranked: list[bytes], *, name: str = "hy.tiktoken") -> None:
    """Writes a tiktoken file, Hunyuan's by default: a line for each byte string, in base64, and its rank."""
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(ranked))
    (folder / name).write_text("\n".join(lines))
