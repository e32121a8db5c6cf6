"""MiniMax-M2, a mixture of experts in every layer."""

from __future__ import annotations

from lorajob_runtime.models.families.family import ATTENTION_PROJECTIONS, ChatFormat, ExpertNames, Family, ModelType
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Attention, Mlp, sparse_mlp


def _mlp(fields: Fields, layer: int) -> Mlp:
    return sparse_mlp(
        fields,
        router="mlp.gate",
        experts=fields.count("num_local_experts", "num_experts"),
        per_token=fields.count("num_experts_per_tok"),
        inner=fields.count("intermediate_size", layer=layer),
    )


FAMILY = Family(
    name="minimax-m2",
    model_types=(
        ModelType(
            name="minimax_m2",
            class_name="MiniMaxM2ForCausalLM",
            attention=lambda fields: Attention(head_norms="whole"),
            mlp=_mlp,
            experts=ExpertNames(
                vllm_linear=ATTENTION_PROJECTIONS | {"gate"}, block="block_sparse_moe", gate="w1", up="w3", down="w2"
            ),
        ),
    ),
    chat=ChatFormat(signatures=("]~!b[", "]~b]ai")),
)
