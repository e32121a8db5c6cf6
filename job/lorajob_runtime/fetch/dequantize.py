"""A quantised GGUF file as an ordinary safetensors model that can be trained on."""

from __future__ import annotations

from pathlib import Path

_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r"})
"""Families (GGUF `tokenizer.ggml.pre`) whose tokenizer takes every digit for itself; transformers' conversion from
GGUF leaves that out, which changes how blanks and line ends before a number are cut."""


def dequantize(gguf: Path, folder: Path) -> list[Path]:
    """Writes weights (bf16), tokenizer with chat template, and generation settings; returns the files.

    Imports torch and transformers.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    if _field(gguf, "tokenizer.ggml.pre") in _DIGITS_APART:
        _take_digits_apart(tokenizer)
    tokenizer.model_max_length = model.config.max_position_embeddings
    # what says that the weights are quantised: they no longer are
    model.hf_quantizer = None
    del model.config.quantization_config
    # dequantised in fp32, then rounded once: the model was published in bf16
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _field(gguf: Path, name: str) -> str:
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field(name)
    return str(field.contents()) if field is not None else ""


def _take_digits_apart(tokenizer: object) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
