"""What is read from a config.json: shapes and counts as transformers makes them, at the sizes of the real models."""

from __future__ import annotations

import json

import pytest

import families
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import architecture, lora_weights
from lorajob_runtime.models.shapes import Architecture

MILLION = 10**6


def of(name: str) -> Architecture:
    found = architecture.read(catalog.get(name).config)
    assert found is not None
    return found


def other_configs():
    import transformers

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
    }
    return {
        "llama": transformers.LlamaConfig(**sizes, attention_bias=True, mlp_bias=True),
        "tied llama": transformers.LlamaConfig(**sizes, tie_word_embeddings=True),
        "mistral": transformers.MistralConfig(**sizes),
        "biased qwen3": transformers.Qwen3Config(**sizes, attention_bias=True),
        "qwen3 moe": transformers.Qwen3MoeConfig(**sizes, num_experts=8, mlp_only_layers=[1]),
        "dense hunyuan": transformers.HunYuanDenseV1Config(**sizes, head_dim=8),
        "glm with normed heads": families.config("glm-4.5", use_qk_norm=True, attention_bias=False),
        "hunyuan of several top-k": families.config("hunyuan", moe_topk=[1, 2, 3]),
    }


@pytest.mark.parametrize(
    "name",
    [
        *families.FAMILIES,
        "llama",
        "tied llama",
        "mistral",
        "biased qwen3",
        "qwen3 moe",
        "dense hunyuan",
        "glm with normed heads",
        "hunyuan of several top-k",
    ],
)
def test_every_weight_has_the_name_and_shape_that_transformers_gives_it(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = families.config(name) if name in families.FAMILIES else other_configs()[name]
    with torch.device("meta"):
        real = dict(AutoModelForCausalLM.from_config(config).named_parameters(remove_duplicate=False))

    found = architecture.read(json.loads(config.to_json_string(use_diff=False)))

    assert found is not None
    for weight in found.weights():
        matrix = weight.matrix
        stored = real.get(weight.full_name, real.get(f"{weight.full_name}.weight"))
        shape = (matrix.outputs, matrix.inputs)
        assert stored is not None
        assert tuple(stored.shape) == ((matrix.copies, *shape) if weight.is_stack else shape)
        assert (f"{weight.full_name}.bias" in real) == matrix.bias
    matrices = {end for weight in found.weights() for end in (weight.full_name, f"{weight.full_name}.weight")}
    assert {parameter for parameter, value in real.items() if value.ndim > 1} <= matrices | {
        "model.embed_tokens.weight"
    }
    assert found.parameters == sum(item.numel() for item in set(real.values()))


@pytest.mark.parametrize("name", list(catalog.entries()))
def test_the_catalog_says_as_many_parameters_as_its_shapes_have(name: str) -> None:
    entry = catalog.get(name)

    assert of(name).parameters == entry.parameters
    assert of(name).active_parameters == entry.active_parameters


@pytest.mark.parametrize(
    ("name", "without_experts", "with_experts"),
    [
        ("qwen3-8b", 21.8, 21.8),
        ("qwen2.5-coder-7b", 20.2, 20.2),
        ("hunyuan-a13b", 12.3, 297.5),
        ("glm-4.5-air", 22.1, 594.3),
        ("minimax-m2", 13.2, 1378.5),
    ],
)
def test_an_adapter_of_rank_8_has_the_known_number_of_parameters(name, without_experts, with_experts) -> None:
    counts = [lora_weights.adapter_parameters(of(name), LoraSpec(), experts=experts) for experts in (False, True)]

    assert [round(count / MILLION, 1) for count in counts] == [without_experts, with_experts]


@pytest.mark.parametrize(
    ("lora", "groups"),
    [
        (LoraSpec(targets=("q_proj",)), {"attention"}),
        (LoraSpec(targets=("gate_proj", "up_proj")), {"dense", "shared", "experts"}),
        (LoraSpec(targets=("shared_experts.down_proj",)), {"shared"}),
        (LoraSpec(targets=("w2",)), {"experts"}),
        (LoraSpec(targets=("q_proj",), experts=True), {"attention", "experts"}),
        (LoraSpec(targets=("q_proj",), router=True), {"attention", "router"}),
        (LoraSpec(targets=("lm_head",)), {"other"}),
    ],
)
def test_targets_of_a_mixture_of_experts_mean_what_they_say(lora, groups) -> None:
    chosen = lora_weights.adapted(of("glm-4.5-air"), lora, experts=True)

    assert {weight.group for weight in chosen} == groups
    assert lora_weights.wants_experts(of("glm-4.5-air"), lora) == ("experts" in groups)


@pytest.mark.parametrize(
    ("name", "targets", "wanted"),
    [
        ("glm-4.5-air", ("shared_experts.gate_proj",), False),
        ("glm-4.5-air", ("layers.0.mlp.down_proj",), False),
        ("glm-4.5-air", ("mlp.down_proj",), False),
        ("glm-4.5-air", ("experts.down_proj",), True),
        ("hunyuan-a13b", ("shared_mlp.down_proj",), False),
        ("hunyuan-a13b", ("shared_mlp.down_proj", "down_proj"), True),
        ("minimax-m2", ("w1", "w3"), True),
        ("qwen3-8b", "auto", False),
    ],
)
def test_routed_experts_are_wanted_where_a_name_is_theirs(name, targets, wanted) -> None:
    assert lora_weights.wants_experts(of(name), LoraSpec(targets=targets)) == wanted


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        (
            "qwen3-8b",
            LoraSpec(targets=("q_proj", "query")),
            "lora.targets has 'query': no weight of qwen3-8b is called so; "
            "it has down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj",
        ),
        ("qwen3-8b", LoraSpec(experts=True), "lora.experts is true: qwen3-8b has no experts"),
        ("qwen3-8b", LoraSpec(router=True), "lora.router is true: qwen3-8b has no router"),
        ("minimax-m2", LoraSpec(targets=("gate_proj",)), "lora.targets has 'gate_proj' without 'up_proj'"),
        ("minimax-m2", LoraSpec(targets=("gate",)), "that is the router, which trains only with lora.router: true"),
    ],
)
def test_what_a_model_does_not_have_is_refused_in_one_line(name, lora, message) -> None:
    with pytest.raises(ConfigError) as raised:
        lora_weights.adapted(of(name), lora, experts=True, model=name)

    assert message in raised.value.message


def test_a_target_that_only_routed_experts_have_is_refused_without_them() -> None:
    with pytest.raises(ConfigError, match="only routed experts are called so, and they get no adapter"):
        lora_weights.adapted(of("minimax-m2"), LoraSpec(targets=("down_proj",), experts=False), experts=False)


@pytest.mark.parametrize(("name", "renamed"), [("hunyuan-a13b", "hunyuan"), ("minimax-m2", "minimax")])
def test_a_repository_that_calls_its_type_otherwise_has_the_shapes_of_its_class(name: str, renamed: str) -> None:
    entry = catalog.get(name)

    config = {**entry.config, "model_type": renamed, "architectures": [entry.architecture]}

    assert architecture.read(config) == architecture.read(entry.config)


def test_a_class_that_a_repository_brings_has_no_shapes_whatever_type_it_says() -> None:
    code = {"architectures": ["Own"], "auto_map": {"AutoModelForCausalLM": "own.Own"}}

    assert architecture.read({**catalog.get("qwen3-8b").config, **code}) is None


def test_a_model_of_an_unknown_type_has_no_shapes() -> None:
    assert architecture.read({"model_type": "gpt_oss", "hidden_size": 32}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "config.json of a qwen3 model has no hidden_size"),
        ({"num_hidden_layers": "many"}, "config.json has num_hidden_layers 'many': it must be a whole number"),
        ({"num_hidden_layers": 10**9}, "config.json has num_hidden_layers 1000000000: it must be from 1 to 8192"),
        ({"num_attention_heads": 0}, "config.json has num_attention_heads 0: it must be from 1 to 65536"),
    ],
)
def test_a_config_without_a_size_is_an_error_that_names_it(change, message) -> None:
    with pytest.raises(ModelError) as raised:
        architecture.read(catalog.get("qwen3-8b").config | change)

    assert raised.value.message == message
