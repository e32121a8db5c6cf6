"""Turns a quantised GGUF file into an ordinary safetensors model that can be trained on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorajob_runtime.models import families

_SPLITS_DIGITS = ("starcoder", "refact", "command-r")
"""Tokenizers of no family here that take every digit for itself, as `tokenizer.ggml.pre` calls them."""


def dequantize(gguf: Path, folder: Path) -> list[Path]:
    """Writes weights (bf16), tokenizer with chat template, and generation settings; returns the files.

    Imports torch and transformers.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with _read_once():
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        kind = _field(gguf, "tokenizer.ggml.pre")
    if kind in _SPLITS_DIGITS or any(kind in family.gguf_splits_digits for family in families.ALL):
        # without it blanks and line ends before a number are cut in another way
        _take_digits_apart(tokenizer)
    tokenizer.model_max_length = model.config.max_position_embeddings
    # what says that the weights are quantised: they no longer are
    model.hf_quantizer = None
    del model.config.quantization_config
    # dequantised in fp32, then rounded once: the model was published in bf16
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


@contextmanager
def _read_once() -> Iterator[None]:
    """Lets transformers, which opens the file three times and maps names once a tensor, do either only once.

    Each time takes seconds: the reader makes an array of every token of the vocabulary.
    """
    import gguf

    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, original in originals.items():
            setattr(gguf, name, functools.cache(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def _field(path: Path, name: str) -> str:
    import gguf

    field = gguf.GGUFReader(str(path)).get_field(name)
    return str(field.contents()) if field is not None else ""


def _take_digits_apart(tokenizer: object) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
