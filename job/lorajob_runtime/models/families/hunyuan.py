"""Hunyuan, dense and as a mixture of experts (A13B)."""

from __future__ import annotations

from lorajob_runtime.models.families.family import (
    ATTENTION_PROJECTIONS,
    MLP_PROJECTIONS,
    ChatFormat,
    ExpertNames,
    Family,
    ModelType,
    TiktokenFile,
)
from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Mlp, biased_with_head_norms, gated_matrices, sparse_mlp

_RENAMED_FIELDS = {"head_dim": "attention_head_dim"}

_STACKED_ONLY = (
    "vLLM 0.33 runs Hunyuan on transformers' code and loads its experts only as PEFT stacks them: there serve the "
    'adapter as it was, with --enable-mixed-moe-lora-format and "is_3d_lora_weight": true'
)


def _sparse(fields: Fields, layer: int) -> Mlp:
    inner = fields.count("intermediate_size")
    return sparse_mlp(
        fields,
        router="mlp.gate.wg",
        experts=fields.count("num_experts", "num_local_experts", layer=layer),
        per_token=fields.count("moe_topk", "num_experts_per_tok", default=1, layer=layer),
        inner=inner,
        shared=gated_matrices("mlp.shared_mlp", "shared", fields.count("hidden_size"), inner),
    )


FAMILY = Family(
    name="hunyuan",
    model_types=(
        ModelType(
            name="hunyuan_v1_dense",
            class_name="HunYuanDenseV1ForCausalLM",
            attention=biased_with_head_norms,
            renamed_fields=_RENAMED_FIELDS,
        ),
        ModelType(
            name="hunyuan_v1_moe",
            class_name="HunYuanMoEV1ForCausalLM",
            attention=biased_with_head_norms,
            mlp=_sparse,
            renamed_fields=_RENAMED_FIELDS,
            experts=ExpertNames(vllm_linear=ATTENTION_PROJECTIONS | MLP_PROJECTIONS, vllm_note=_STACKED_ONLY),
        ),
    ),
    chat=ChatFormat(signatures=("<|startoftext|>", "<|extra_0|>"), switch_after_answer=True),
    # the pattern and the names are those of the repository's tokenization_hy.py
    tiktoken=TiktokenFile(
        file="hy.tiktoken",
        class_name="HYTokenizer",
        split_pattern=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        control_tokens=(
            *("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"),
            *(f"<|extra_{number}|>" for number in range(205)),
        ),
    ),
)
