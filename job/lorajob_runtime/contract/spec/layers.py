"""Partial specs in their file form: laid over one another, and made from one field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import ConfigError


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over one another, the later ones winning field by field.

    `data.columns` is one value, not a layer: a later one replaces an earlier one whole.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if key != "columns" and isinstance(value, Mapping) and isinstance(below, Mapping):
                result[key] = merge(below, value)
            else:
                result[key] = merge(value) if isinstance(value, Mapping) else value
    return result


def nest(path: str, value: object) -> dict[str, Any]:
    """`train.maxSteps`, 8 -> {"train": {"maxSteps": 8}}. Raises ConfigError for an empty part."""
    parts = path.split(".")
    if not all(parts):
        raise ConfigError(f"{path!r} is not the name of a field: it must be like train.maxSteps")
    nested: Any = value
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)
