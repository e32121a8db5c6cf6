"""GLM-4.5 and its Air, mixtures of experts with shared ones and dense first layers."""

from __future__ import annotations

from lorajob_runtime.models.families.family import (
    ATTENTION_PROJECTIONS,
    MLP_PROJECTIONS,
    ChatFormat,
    ExpertNames,
    Family,
    ModelType,
)
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Attention, Mlp, dense_mlp, gated_matrices, sparse_mlp


def _attention(fields: Fields) -> Attention:
    return Attention(
        qkv_bias=fields.flag("attention_bias"), head_norms="head" if fields.flag("use_qk_norm") else "none"
    )


def _mlp(fields: Fields, layer: int) -> Mlp:
    if layer < fields.count("first_k_dense_replace", default=1):
        return dense_mlp(fields, layer)
    inner = fields.count("moe_intermediate_size")
    shared = inner * fields.count("n_shared_experts", default=1)
    return sparse_mlp(
        fields,
        router="mlp.gate",
        experts=fields.count("n_routed_experts", "num_local_experts"),
        per_token=fields.count("num_experts_per_tok"),
        inner=inner,
        shared=gated_matrices("mlp.shared_experts", "shared", fields.count("hidden_size"), shared),
    )


FAMILY = Family(
    name="glm-4.5",
    model_types=(
        ModelType(
            name="glm4_moe",
            class_name="Glm4MoeForCausalLM",
            attention=_attention,
            mlp=_mlp,
            experts=ExpertNames(vllm_linear=ATTENTION_PROJECTIONS | MLP_PROJECTIONS | {"gate"}),
        ),
    ),
    # the template writes nothing after an answer: the model stops at what begins the next turn
    chat=ChatFormat(
        signatures=("[gMASK]<sop>", "<think></think>"), end_of_turn="<|user|>", end_of_call="<|observation|>"
    ),
)
