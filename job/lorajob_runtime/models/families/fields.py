"""The values of a config.json as the numbers and flags that a model's shapes follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import ModelError


class Fields:
    """The values of a config.json. What is wrong with one is a ModelError that names its field."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def count(self, *names: str, default: int | None = None, layer: int = 0) -> int:
        """The first of the fields that is there; of a list the value of one layer."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, list) and layer < len(value):
                value = value[layer]
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ModelError(f"config.json has {name} {value!r}: it must be a whole number")
            return value
        if default is None:
            raise ModelError(f"config.json of a {self.config.get('model_type')} model has no {names[0]}")
        return default

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.config.get(name)
        return default if value is None else bool(value)

    @property
    def key_heads(self) -> int:
        return self.count("num_key_value_heads", default=self.count("num_attention_heads"))

    @property
    def head_dim(self) -> int:
        return self.count("head_dim", default=self.count("hidden_size") // max(1, self.count("num_attention_heads")))
