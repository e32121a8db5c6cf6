"""What a model's files bound: which token ids it has a row for, and how many tokens it was made to read at once.

Standard library only, so that a plan needs no more than a config.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.models import config_files

_WINDOWS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
_TABLES = frozenset(
    {"gpt2", "gpt_neo", "gpt_bigcode", "gptj", "codegen", "opt", "biogpt", "openai-gpt", "xlm-roberta", "roberta"}
)
"""Model types that look a token's position up in a table, which ends."""
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight")
_HEADER_MAX_BYTES = 2**27


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Of one model; None for what its files do not say."""

    vocabulary: int | None = None
    """Rows of the embedding: token ids go from 0 to one less."""
    window: int | None = None
    """Tokens, with what stretches the positions counted in. Attention that slides over a part of them is no bound."""
    ends: bool = False
    """Whether a token behind the window cannot be read at all, not only badly."""

    def excess(self, max_length: int) -> str | None:
        """What is to be said of a data.maxLength beyond the window."""
        if self.window is None or max_length <= self.window:
            return None
        return f"data.maxLength {max_length} is more than the model's window of {self.window} tokens"


UNKNOWN = Bounds()


def of_config(config: Mapping[str, Any]) -> Bounds:
    """The bounds in the values of a config.json; what is no number there is not known."""
    text = config.get("text_config")
    both = {**config, **text} if isinstance(text, Mapping) else config
    window = None if both.get("alibi") else _window(both)
    return Bounds(vocabulary=_number(both.get("vocab_size")), window=window, ends=both.get("model_type") in _TABLES)


def of_folder(folder: Path) -> Bounds:
    """The bounds of a model's folder. One without a config.json that can be read has none: loading tells of that."""
    config = config_files.read_if_usable(folder / config_files.CONFIG)
    if config is None:
        return UNKNOWN
    found = of_config(config)
    if found.vocabulary is not None:
        return found
    rows = next((rows for path in sorted(folder.glob("*.safetensors")) if (rows := _embedding_rows(path))), None)
    return Bounds(vocabulary=rows, window=found.window, ends=found.ends)


def _window(config: Mapping[str, Any]) -> int | None:
    stored = max((value for name in _WINDOWS if (value := _number(config.get(name)))), default=None)
    if stored is None:
        return None
    reached = [stored]
    for scaling in _scalings(config):
        factor, original = scaling.get("factor"), _number(scaling.get("original_max_position_embeddings"))
        if isinstance(factor, int | float) and factor > 1:
            reached.append(int(factor * (original or stored)))
    return max(reached)


def _scalings(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How rotary positions are stretched: for all layers, or for each kind of them."""
    for name in ("rope_scaling", "rope_parameters"):
        value = config.get(name)
        if isinstance(value, Mapping):
            yield value
            yield from (each for each in value.values() if isinstance(each, Mapping))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _embedding_rows(path: Path) -> int | None:
    """Rows of the embedding, as the header of a safetensors file says."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= _HEADER_MAX_BYTES else {}
        return next((int(entry["shape"][0]) for name, entry in header.items() if name.endswith(_EMBEDDINGS)), None)
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return None
