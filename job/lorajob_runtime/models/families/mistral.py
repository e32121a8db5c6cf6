"""Mistral."""

from __future__ import annotations

from lorajob_runtime.models.families.family import Family, ModelType
from lorajob_runtime.models.families.layers import Attention

FAMILY = Family(
    name="mistral",
    model_types=(ModelType(name="mistral", class_name="MistralForCausalLM", attention=lambda fields: Attention()),),
)
