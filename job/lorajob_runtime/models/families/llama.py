"""Llama."""

from __future__ import annotations

from lorajob_runtime.models.families.family import Family, ModelType
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Mlp, biased_as_configured, dense_mlp


def _mlp(fields: Fields, layer: int) -> Mlp:
    return dense_mlp(fields, layer, bias=fields.flag("mlp_bias"))


FAMILY = Family(
    name="llama",
    model_types=(ModelType(name="llama", class_name="LlamaForCausalLM", attention=biased_as_configured, mlp=_mlp),),
)
