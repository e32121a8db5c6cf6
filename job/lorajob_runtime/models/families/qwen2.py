"""Qwen2 and Qwen2.5."""

from __future__ import annotations

from lorajob_runtime.models.families.family import ChatFormat, Family, ModelType
from lorajob_runtime.models.families.layers import Attention

FAMILY = Family(
    name="qwen2.5",
    model_types=(
        ModelType(name="qwen2", class_name="Qwen2ForCausalLM", attention=lambda fields: Attention(qkv_bias=True)),
    ),
    chat=ChatFormat(signatures=("<|im_start|>", "You are Qwen, created by Alibaba Cloud")),
)
