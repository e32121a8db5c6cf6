"""At the sizes of the real models an adapter has as many numbers as a formula of the architecture says."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import architecture, lora_weights
from lorajob_runtime.train.lora import attach

RANK = 8


def pair(inputs: int, outputs: int) -> int:
    """A [rank, inputs] and B [outputs, rank]."""
    return RANK * (inputs + outputs)


def attention(*, hidden: int, heads: int, key_heads: int, head: int) -> int:
    queries, keys = heads * head, key_heads * head
    return pair(hidden, queries) + 2 * pair(hidden, keys) + pair(queries, hidden)


def mlp(hidden: int, inner: int) -> int:
    return 2 * pair(hidden, inner) + pair(inner, hidden)


def experts(count: int, hidden: int, inner: int) -> int:
    """Gate and up are one weight, with one A of their own rank."""
    return count * (pair(hidden, 2 * inner) + pair(inner, hidden))


# numbers of the models' own config.json
FORMULAS = {
    "qwen3-8b": {
        "attention": 36 * attention(hidden=4096, heads=32, key_heads=8, head=128),
        "dense": 36 * mlp(4096, 12288),
    },
    "qwen2.5-coder-7b": {
        "attention": 28 * attention(hidden=3584, heads=28, key_heads=4, head=128),
        "dense": 28 * mlp(3584, 18944),
    },
    "hunyuan-a13b": {
        "attention": 32 * attention(hidden=4096, heads=32, key_heads=8, head=128),
        "shared": 32 * mlp(4096, 3072),
        "experts": 32 * experts(64, 4096, 3072),
    },
    "glm-4.5-air": {
        "attention": 46 * attention(hidden=4096, heads=96, key_heads=8, head=128),
        "dense": mlp(4096, 10944),
        "shared": 45 * mlp(4096, 1408),
        "experts": 45 * experts(128, 4096, 1408),
    },
    "minimax-m2": {
        "attention": 62 * attention(hidden=3072, heads=48, key_heads=8, head=128),
        "experts": 62 * experts(256, 3072, 1536),
    },
}


def attached(name: str, *, experts: bool) -> attach.TargetReport:
    values = dict(catalog.get(name).config)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        return attach.report(
            attach.attach(model, LoraSpec(rank=RANK, dropout=0.0), seed=0, experts=experts), dropout=0.0
        )


@pytest.mark.parametrize("name", list(FORMULAS))
def test_every_part_of_an_adapter_has_the_numbers_of_the_formula(name: str) -> None:
    report = attached(name, experts=True)

    assert {part: group.parameters for part, group in report.groups.items()} == FORMULAS[name]
    assert report.trained_parameters == sum(FORMULAS[name].values())
    found = architecture.read(catalog.get(name).config)
    assert found is not None
    assert report.trained_parameters == lora_weights.adapter_parameters(found, LoraSpec(rank=RANK), experts=True)
    assert report.all_parameters - report.trained_parameters == catalog.get(name).parameters


def test_qwen3_8b_trains_21_8_million_numbers() -> None:
    assert sum(FORMULAS["qwen3-8b"].values()) == 21_823_488


@pytest.mark.parametrize("name", ["hunyuan-a13b"])
def test_without_routed_experts_the_other_parts_keep_theirs(name: str) -> None:
    report = attached(name, experts=False)

    without = {part: count for part, count in FORMULAS[name].items() if part != "experts"}
    assert {part: group.parameters for part, group in report.groups.items()} == without
