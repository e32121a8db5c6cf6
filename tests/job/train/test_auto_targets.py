"""What `lora.targets: auto` means for models whose projections are joined, or called otherwise than in the recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from golden.said import Said
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models.lora_targets import AUTO_TARGETS
from lorajob_runtime.train.lora import attach

LAYERS = 2
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "pad_token_id": 0,
}


def attached(config: Any) -> attach.TargetReport:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        return attach.report(attach.attach(model, LoraSpec(), seed=0, experts=False), dropout=0.0)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("Phi3Config", {}, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("Glm4Config", {"head_dim": 8}, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("PhiConfig", {"num_key_value_heads": 4}, {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),
        (
            "OPTConfig",
            {"ffn_dim": 48, "word_embed_proj_dim": 32},
            {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
        ),
    ],
)
def test_auto_adapts_all_that_attention_and_mlps_are_made_of(
    name: str, settings: dict[str, Any], expected: set[str]
) -> None:
    report = attached(getattr(transformers, name)(**(SIZES | settings)))

    assert report.targets == dict.fromkeys(sorted(expected), LAYERS)


def test_the_gate_of_shared_experts_is_left_alone_as_a_router_is() -> None:
    config = transformers.Qwen2MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=16)

    assert list(attached(config).targets) == sorted(AUTO_TARGETS)


def test_layers_that_auto_knows_nothing_of_are_named_in_one_line(said: Said) -> None:
    config = transformers.NemotronHConfig(**SIZES, layers_block_type=["mamba", "attention"], mamba_num_heads=4)

    with pytest.raises(ConfigError) as caught:
        attached(config)

    assert caught.value.path == "lora.targets"
    said(caught.value.message)
