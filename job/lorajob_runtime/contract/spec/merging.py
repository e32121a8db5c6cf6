"""Partial specs in their file form: laid over one another, and made from one field."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec.listing import every_field


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over one another, the later ones winning field by field.

    A mapping that is a field, like `data.columns`, is one value and no layer: a later one replaces it whole.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if key not in _mapping_fields() and isinstance(value, Mapping) and isinstance(below, Mapping):
                result[key] = merge(below, value)
            else:
                result[key] = merge(value) if isinstance(value, Mapping) else value
    return result


@functools.cache
def _mapping_fields() -> frozenset[str]:
    """Last words of the paths of fields that are mappings."""
    return frozenset(field.path.rpartition(".")[2] for field in every_field() if isinstance(field.default, dict))


def nest(path: str, value: object) -> dict[str, Any]:
    """`train.maxSteps`, 8 -> {"train": {"maxSteps": 8}}. Raises ConfigError for an empty part."""
    parts = path.split(".")
    if not all(parts):
        raise ConfigError(f"{path!r} is not the name of a field: it must be like train.maxSteps")
    nested: Any = value
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)
