"""Adapters with experts taken apart: PEFT gives the same answers with them, and vLLM's loader knows every name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import families
from family_models import FamilyModels, save, shake
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.publish import expert_layouts
from lorajob_runtime.train.lora import attach

TOKENS = torch.randint(3, families.VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))
MODEL_TYPES = {"hunyuan": "hunyuan_v1_moe", "glm-4.5": "glm4_moe", "minimax-m2": "minimax_m2", "qwen3": "qwen3"}
# what vLLM 0.33 has of these families: linear layers by the last part of their names, packed ones by those of their
# parts (`packed_modules_mapping`), and each expert's projections (`ckpt_names` of its experts)
LINEAR = {
    "hunyuan": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "glm-4.5": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "gate"},
    "minimax-m2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate"},
}
EXPERT = {
    "hunyuan": ("mlp", ("gate_proj", "up_proj", "down_proj")),
    "glm-4.5": ("mlp", ("gate_proj", "up_proj", "down_proj")),
    "minimax-m2": ("block_sparse_moe", ("w1", "w2", "w3")),
}


def adapter(models: FamilyModels, family: str, folder: Path, **settings: Any) -> Any:
    """A saved adapter; the model with it."""
    spec = LoraSpec(dropout=0.0, **settings)
    model = shake(attach.attach(models.load(family), spec, seed=3, experts=True)).eval()
    folder.mkdir()
    save(model, folder)
    return model


def convert(folder: Path, family: str, layout_name: expert_layouts.Layout = "vllm") -> Path:
    output = folder.with_name("converted")
    expert_layouts.convert(folder, output, layout_name=layout_name, model_type=MODEL_TYPES[family])
    return output


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS).logits
    return logits


def refused_by_vllm(names: list[str], family: str) -> list[str]:
    """Names that `check_unexpected_modules` of vLLM's loader would refuse, or whose layer its model has not."""
    block, projections = EXPERT[family]
    expected = {f"experts.{expert}.{name}" for expert in range(8) for name in projections}
    refused = []
    for name in names:
        match = re.fullmatch(r"base_model\.model\.(model\.layers\.\d+\..*)\.lora_[AB]\.weight", name)
        module = match[1] if match else name
        if ".experts" in module:
            suffix = module[module.find(".experts") + 1 :]
            good = suffix in expected and f".{block}.experts" in module
        else:
            good = module.rsplit(".", 1)[-1] in LINEAR[family]
        if match is None or not good:
            refused.append(name)
    return refused


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_plain_peft_gives_the_same_answers_with_experts_taken_apart(
    family_models: FamilyModels, family: str, tmp_path: Path
) -> None:
    model = adapter(family_models, family, tmp_path / "adapter", router=True)

    output = convert(tmp_path / "adapter", family, "per-expert")

    assert torch.equal(
        answers(PeftModel.from_pretrained(family_models.load(family), str(output)).eval()), answers(model)
    )


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_vllms_loader_knows_every_name_and_finds_all_of_each_expert(
    family_models: FamilyModels, family: str, tmp_path: Path
) -> None:
    # of Hunyuan's router vLLM takes none
    adapter(family_models, family, tmp_path / "adapter", router=family != "hunyuan")

    weights = load_file(convert(tmp_path / "adapter", family) / layout.ADAPTER_WEIGHTS)

    assert refused_by_vllm(list(weights), family) == []
    sparse_layers = families.LAYERS - (family == "glm-4.5")
    experts = [name for name in weights if ".experts." in name]
    assert len(experts) == sparse_layers * 8 * 3 * 2
    assert {weights[name].shape[0 if ".lora_A." in name else 1] for name in weights} == {8}


@pytest.mark.parametrize("targets", [("q_proj", "gate_proj", "up_proj"), ("down_proj",)])
def test_vllm_gets_all_three_projections_of_an_expert_also_where_only_some_were_trained(
    family_models: FamilyModels, targets: tuple[str, ...], tmp_path: Path
) -> None:
    model = adapter(family_models, "glm-4.5", tmp_path / "adapter", targets=targets)

    output = convert(tmp_path / "adapter", "glm-4.5")

    weights = load_file(output / layout.ADAPTER_WEIGHTS)
    assert len([name for name in weights if ".experts." in name]) == 2 * 8 * 3 * 2
    reloaded = PeftModel.from_pretrained(family_models.load("glm-4.5"), str(output)).eval()
    assert torch.equal(answers(reloaded), answers(model))


def test_each_experts_share_times_the_scale_is_its_part_of_pefts_change_of_the_weights(
    family_models: FamilyModels, tmp_path: Path
) -> None:
    model = adapter(family_models, "minimax-m2", tmp_path / "adapter")

    weights = load_file(convert(tmp_path / "adapter", "minimax-m2") / layout.ADAPTER_WEIGHTS)

    down = model.base_model.model.model.layers[1].mlp.experts
    gate, up = down.base_layer.get_delta_weight("default").chunk(2, dim=1)
    for projection, change in (("w1", gate), ("w3", up), ("w2", down.get_delta_weight("default"))):
        for expert in (0, 5):
            prefix = f"base_model.model.model.layers.1.block_sparse_moe.experts.{expert}.{projection}"
            share = weights[f"{prefix}.lora_B.weight"] @ weights[f"{prefix}.lora_A.weight"] * 32 / 8
            torch.testing.assert_close(share, change[expert], atol=1e-6, rtol=1e-5)


def test_everything_beside_the_weights_comes_along_and_the_adapter_stays_as_it_was(
    family_models: FamilyModels, tmp_path: Path
) -> None:
    source = tmp_path / "adapter"
    adapter(family_models, "hunyuan", source)
    (source / "tokenizer.json").write_text("{}")
    (source / layout.OPTIMIZER).write_text("large")
    before = {path.name: path.read_bytes() for path in source.iterdir()}

    output = convert(source, "hunyuan")

    assert {path.name for path in output.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    }
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    config = json.loads((output / layout.ADAPTER_CONFIG).read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_parameters"] == [
        f"mlp.shared_mlp.{name}.weight" for name in ("down_proj", "gate_proj", "up_proj")
    ]


@pytest.mark.parametrize("family", ["qwen3", "glm-4.5"])
def test_an_adapter_without_experts_stays_as_it_is(family_models: FamilyModels, family: str, tmp_path: Path) -> None:
    adapter(family_models, family, tmp_path / "adapter", targets=("q_proj", "o_proj"))

    output = convert(tmp_path / "adapter", family)

    for name in (layout.ADAPTER_CONFIG, layout.ADAPTER_WEIGHTS):
        assert _content(output / name) == _content(tmp_path / "adapter" / name)


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return {name: weight.tolist() for name, weight in load_file(path).items()}


@pytest.mark.parametrize(
    ("family", "model_type", "settings", "words"),
    [
        ("hunyuan", "hunyuan_v1_moe", {"router": True}, "of a hunyuan_v1_moe vLLM takes no adapter of wg"),
        (
            "glm-4.5",
            "glm4_moe",
            {"targets": ("lm_head", "down_proj")},
            "of a glm4_moe vLLM takes no adapter of lm_head",
        ),
        ("glm-4.5", "deepseek_v3", {}, "of a model of type deepseek_v3, whose experts' names are not known"),
        ("glm-4.5", None, {}, "of a model of type None"),
    ],
)
def test_what_vllm_would_not_load_is_refused_before_anything_is_written(
    family_models: FamilyModels,
    family: str,
    model_type: str | None,
    settings: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    adapter(family_models, family, tmp_path / "adapter", **settings)

    with pytest.raises(ConfigError, match=words):
        expert_layouts.convert(tmp_path / "adapter", tmp_path / "new", layout_name="vllm", model_type=model_type)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank_pattern": {"down_proj": 16}}, 'has rank_pattern {"down_proj": 16}: experts of such an adapter'),
        ({"use_rslora": True}, "has use_rslora true"),
        ({"target_modules": "all-linear"}, 'has target_modules "all-linear"'),
    ],
)
def test_adapters_whose_stacks_mean_something_else_are_refused(
    family_models: FamilyModels, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    source = tmp_path / "adapter"
    adapter(family_models, "glm-4.5", source, targets=("down_proj",))
    config = json.loads((source / layout.ADAPTER_CONFIG).read_text())
    (source / layout.ADAPTER_CONFIG).write_text(json.dumps(config | changes))

    with pytest.raises(ConfigError, match=re.escape(words)):
        convert(source, "glm-4.5")


def test_an_adapter_that_cannot_be_read_and_an_output_that_is_there_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    for name in (layout.ADAPTER_CONFIG, layout.ADAPTER_WEIGHTS):
        (tmp_path / "adapter" / name).write_text("[]")

    with pytest.raises(ModelError, match=r"the adapter in .* cannot be read"):
        convert(tmp_path / "adapter", "glm-4.5")
    with pytest.raises(ModelError, match="cannot be read"):
        expert_layouts.has_stacks(tmp_path / "adapter")
    (tmp_path / "converted").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert(tmp_path / "adapter", "glm-4.5")
