"""The tokens at which answers end, as generation_config.json gives them to programs that generate with an adapter.

A base model that was never a chat model stops at the end of a document, and training taught it the end of a turn:
beside the adapter both are said. Who loads the base has its own file alone, so the model card gives them as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorajob_runtime.models import config_files
from lorajob_runtime.models.config_files import GENERATION_CONFIG

_FIELD = "eos_token_id"


def write(model: Path, adapter: Path, stop_ids: Sequence[int]) -> None:
    """Puts the model's generation_config.json into the adapter's folder, with the ends of training added to its own.

    Where nothing is to be added the file is the model's, byte for byte. Raises OSError.
    """
    stored = config_files.read_if_usable(model / GENERATION_CONFIG)
    if stored is not None and not set(stop_ids) - set(_ids(stored.get(_FIELD))):
        (adapter / GENERATION_CONFIG).write_bytes((model / GENERATION_CONFIG).read_bytes())
        return
    known = of_model(model)
    together = [*known, *(each for each in stop_ids if each not in known)]
    if together or stored:
        values = {**(stored or {}), _FIELD: together}
        (adapter / GENERATION_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def of_model(folder: Path) -> list[int]:
    """The tokens at which the model of a folder stops by itself: as transformers looks, config.json at last."""
    stored = config_files.read_if_usable(folder / GENERATION_CONFIG)
    if stored is not None:
        return _ids(stored.get(_FIELD))
    config = config_files.read_if_usable(folder / config_files.CONFIG) or {}
    text = config.get("text_config")
    return _ids(config.get(_FIELD)) or _ids(text.get(_FIELD) if isinstance(text, Mapping) else None)


def taught(model: Path, adapter: Path) -> tuple[int, ...]:
    """All ends of an adapter's answers, where its base alone would miss one of them; else none."""
    known, ends = of_model(model), of_model(adapter)
    return tuple(ends) if set(ends) - set(known) else ()


def _ids(value: object) -> list[int]:
    """One token id, a list of them, or none."""
    found = value if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, int) and not isinstance(each, bool)]
