"""The small files beside a model's weights: their names, and the one place that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import file_signatures
from lorajob_runtime.contract.errors import ModelError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"


def read_config(path: Path) -> dict[str, Any]:
    """The values of a config.json. Raises ModelError."""
    try:
        if (said := file_signatures.stand_in(path)) is not None:
            raise ModelError(f"{path} {said}", hint="put the model's own files there and run the command again")
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no configuration of a model: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is no configuration of a model: it must hold a mapping")
    return values


def read_if_usable(path: Path) -> dict[str, Any] | None:
    """The values of one of these files; None for one that is not there or cannot be read: who loads it says why."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """A tokenizer's own settings; nothing where there are none, or none that can be read."""
    return read_if_usable(folder / TOKENIZER_CONFIG) or {}


def chat_template(folder: Path | None) -> str | None:
    """The chat template among a model's files; None where there is no folder, or no template that can be read there."""
    if folder is None:
        return None
    try:
        if (folder / CHAT_TEMPLATE).is_file():
            return (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    template = tokenizer_config(folder).get("chat_template")
    return template if isinstance(template, str) else None


def chat_template_has(folder: Path, text: str) -> bool:
    """Whether a chat template among a tokenizer's files has `text` in it, whichever of them it is in."""
    files = (folder / CHAT_TEMPLATE, folder / TOKENIZER_CONFIG)
    return any(text in path.read_text(encoding="utf-8") for path in files if path.is_file())
