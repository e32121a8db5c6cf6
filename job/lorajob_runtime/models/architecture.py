"""A model's shapes, read from its config.json alone, so that a plan needs no weights and no torch.

Only the model types of `families` are read: their shapes were compared with transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.models import families
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import decoder_layer
from lorajob_runtime.models.shapes import Architecture

_BOUNDS = {"vocab_size": 2**31, "hidden_size": 2**20, "num_attention_heads": 2**16, "num_hidden_layers": 2**13}
"""Nobody who writes a config.json can make a plan count without end."""


def read(config: Mapping[str, Any]) -> Architecture | None:
    """The shapes in the values of a config.json; None for a model type that is not known here.

    Raises ModelError when a field that the shapes need is missing, not a number, or none that any model has.
    """
    config = config.get("text_config") or config
    known = families.of_config(config)
    if known is None:
        return None
    renamed = families.renamed_fields(config, known.name)
    fields = Fields({**config, **renamed, "model_type": known.name})
    for name, most in _BOUNDS.items():
        if not 1 <= fields.count(name) <= most:
            raise ModelError(f"config.json has {name} {fields.count(name)}: it must be from 1 to {most}")
    attention = known.attention(fields)
    numbers = range(fields.count("num_hidden_layers"))
    return Architecture(
        model_type=known.name,
        vocabulary=fields.count("vocab_size"),
        hidden=fields.count("hidden_size"),
        heads=fields.count("num_attention_heads"),
        key_heads=fields.key_heads,
        head_dim=fields.head_dim,
        head_norms=attention.head_norms,
        tied=fields.flag("tie_word_embeddings"),
        layers=tuple(decoder_layer(fields, attention, known.mlp(fields, number)) for number in numbers),
    )
