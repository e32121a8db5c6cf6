"""Qwen3, dense and as a mixture of experts."""

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
from lorajob_runtime.models.families.layers import Mlp, biased_with_head_norms, dense_mlp, sparse_mlp


def _sparse(fields: Fields, layer: int) -> Mlp:
    count = fields.count("num_experts", "num_local_experts")
    every = fields.count("decoder_sparse_step", default=1)
    if layer in (fields.config.get("mlp_only_layers") or ()) or count == 0 or (layer + 1) % max(1, every):
        return dense_mlp(fields, layer)
    return sparse_mlp(
        fields,
        router="mlp.gate",
        experts=count,
        per_token=fields.count("num_experts_per_tok"),
        inner=fields.count("moe_intermediate_size"),
    )


FAMILY = Family(
    name="qwen3",
    model_types=(
        ModelType(name="qwen3", class_name="Qwen3ForCausalLM", attention=biased_with_head_norms),
        ModelType(
            name="qwen3_moe",
            class_name="Qwen3MoeForCausalLM",
            attention=biased_with_head_norms,
            mlp=_sparse,
            experts=ExpertNames(
                vllm_linear=ATTENTION_PROJECTIONS | MLP_PROJECTIONS | {"gate", "lm_head", "embed_tokens"}
            ),
        ),
    ),
    chat=ChatFormat(signatures=("<|im_start|>", "enable_thinking", "last_query_index")),
)
