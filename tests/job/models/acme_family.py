"""A family that lorajob does not have, in one module, as one that it gets would be written."""

from __future__ import annotations

from lorajob_runtime.models.families.family import (
    ATTENTION_PROJECTIONS,
    ChatFormat,
    ExpertNames,
    Family,
    ModelType,
    TiktokenFile,
)
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Attention, Mlp, dense_mlp, sparse_mlp


def _attention(fields: Fields) -> Attention:
    return Attention(qkv_bias=True, head_norms="head")


def _mlp(fields: Fields, layer: int) -> Mlp:
    if layer == 0:
        return dense_mlp(fields, layer)
    return sparse_mlp(
        fields,
        router="mlp.switchboard",
        experts=fields.count("experts"),
        per_token=fields.count("experts_at_work"),
        inner=fields.count("expert_size"),
    )


FAMILY = Family(
    name="acme",
    model_types=(
        ModelType(
            name="acme_moe",
            class_name="AcmeForCausalLM",
            attention=_attention,
            mlp=_mlp,
            renamed_fields={"head_dim": "size_of_head"},
            experts=ExpertNames(
                vllm_linear=ATTENTION_PROJECTIONS,
                router="switchboard",
                block="anvil",
                gate="hammer",
                up="tongs",
                down="bellows",
                vllm_note="vLLM serves Acme's experts on Tuesdays",
            ),
        ),
    ),
    chat=ChatFormat(signatures=("[acme]", "[reply]"), end_of_turn="[next]"),
    tiktoken=TiktokenFile(
        file="acme.tiktoken",
        class_name="AcmeTokenizer",
        split_pattern=r"\s+|\S+",
        control_tokens=("[acme]", "[ask]", "[reply]", "[next]"),
    ),
)
