"""The models lorajob knows by name, one TOML file each: where their files are, their family, sizes and recipe.

Standard library only. Any other model is named by its source: an address (contract/hubs.py) or a folder.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lorajob_runtime.contract import hubs
from lorajob_runtime.contract.errors import ModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One model. `thinking`: none (no such mode), switch (on or off), always (cannot be turned off).

    `config` are the fields of its config.json that its shapes follow from, as `architecture.read` takes them.
    `recipe` is a partial RunSpec laid under what the user gives. `weights_bytes` is the download's size.
    `ids` are its names on the model hubs, by the hub's name. `embedded` names a Python package that holds the weights,
    for a model that needs no hub.
    """

    name: str
    title: str
    architecture: str
    family: str
    thinking: Literal["none", "switch", "always"]
    licence: str
    ids: dict[str, str]
    parameters: int
    active_parameters: int
    weights_bytes: int
    config: dict[str, Any]
    embedded: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Whether every parameter works on every token; in a mixture of experts only the active ones do."""
        return self.active_parameters == self.parameters


@functools.cache
def entries() -> dict[str, ModelEntry]:
    """Every entry by name, smallest model first."""
    found = []
    # importlib.resources would do too, and takes ten milliseconds to load: a tenth of a submit
    for file in Path(__file__).parent.glob("*.toml"):
        values = tomllib.loads(file.read_text("utf-8"))
        known = [hub for hub in hubs.MODEL_HUBS if hub.catalog_field in values]
        ids = {hub.name: values.pop(hub.catalog_field) for hub in known}
        found.append(ModelEntry(name=file.name.removesuffix(".toml"), ids=ids, **values))
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.parameters)}


def find(name: str) -> ModelEntry | None:
    """The entry of a catalog name, or of a hub id that one of the entries has; None for any other."""
    parsed = hubs.parse(name)
    plain = (parsed[1] if parsed is not None and parsed[0].is_model_hub else name).lower()
    for entry in entries().values():
        if plain in (entry.name, *(each.lower() for each in entry.ids.values())):
            return entry
    return None


def get(name: str) -> ModelEntry:
    """The entry of a name. Raises ModelError with the nearest known name."""
    entry = find(name)
    if entry is None:
        close = difflib.get_close_matches(name.lower(), entries(), n=1, cutoff=0.5)
        nearest = f"did you mean {close[0]}? It" if close else "it"
        raise ModelError(
            f"unknown model {name!r}: {nearest} must be one of {', '.join(entries())}, or {hubs.FORMS} or a folder"
        )
    return entry
