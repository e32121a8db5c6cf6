"""A model family is one module: with it everything that a run needs to know of the family is known."""

from __future__ import annotations

import json
from pathlib import Path

import acme_family
import pytest
import torch
from safetensors.torch import load_file, save_file

import family_tokenizers
from lorajob.plan import run_plan
from lorajob.plan.gpus import Gpu
from lorajob_runtime.contract import catalog, layout
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import ModelSpec, parse
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.tokenizer import load_tokenizer
from lorajob_runtime.data.rows.conversation import Conversation
from lorajob_runtime.models import config_files, families, preflight
from lorajob_runtime.models.gpu_sizes import GIBIBYTE
from lorajob_runtime.publish import expert_layouts
from lorajob_runtime.train.lora import inventory

CONFIG = {
    "model_type": "a_name_of_its_own",
    "architectures": ["AcmeForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "size_of_head": 32,
    "experts": 4,
    "experts_at_work": 2,
    "expert_size": 48,
}
TEMPLATE = (
    "{% for m in messages %}{{ '[ask]' if m.role == 'user' else '[reply]' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[reply]{% endif %}{# [acme] #}"
)
RANK = 2


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the registry."""
    monkeypatch.setattr(families, "ALL", (*families.ALL, acme_family.FAMILY))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as a hub would have it, but for weights."""
    folder = tmp_path / "acme-small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AcmeTokenizer"}))
    family_tokenizers.write_tiktoken(folder, [bytes([byte]) for byte in range(256)], name="acme.tiktoken")
    return folder


def test_without_the_module_nothing_is_known_of_it(model: Path) -> None:
    assert preflight.architecture_of(ModelSpec(name=str(model))) is None


@pytest.mark.usefixtures("known")
def test_its_shapes_are_read_and_a_run_is_checked_against_them(model: Path) -> None:
    spec = parse({"model": {"name": str(model)}, "lora": {"targets": ["hammer"]}})
    found = preflight.architecture_of(spec.model)

    assert found is not None
    assert (found.model_type, found.head_dim, found.head_norms) == ("acme_moe", 32, "head")
    assert [layer.experts_per_token for layer in found.layers] == [0, 2]
    assert [matrix.path for matrix in found.layers[1].of("router")] == ["mlp.switchboard"]
    with pytest.raises(ConfigError) as raised:
        preflight.check(spec, found, template=config_files.chat_template(model))
    assert "'hammer' without 'tongs'" in raised.value.message


@pytest.mark.usefixtures("known")
def test_a_plan_counts_its_memory_and_its_parameters(model: Path) -> None:
    plan = run_plan.plan(parse({"model": {"name": str(model)}}), Gpu(size=80 * GIBIBYTE, source="this test"))

    attention, dense = 4 * (64 * 128) + 3 * 128, 3 * 64 * 160
    experts, norms = 4 * 3 * 64 * 48 + 4 * 64, 2 * 64 + 2 * 32
    assert plan.architecture is not None
    assert plan.placement is not None
    assert plan.architecture.model_type == "acme_moe"
    assert plan.architecture.parameters == 2 * 1000 * 64 + 64 + 2 * (attention + norms) + dense + experts
    assert (plan.placement.fits, plan.placement.experts) == (True, True)


@pytest.mark.usefixtures("known")
def test_its_tokenizer_is_read_and_its_template_ends_answers_as_it_says(model: Path) -> None:
    template = ChatTemplate(load_tokenizer(model), thinking=False)

    rendered = template.conversation(
        Conversation(messages=[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}])
    )

    assert template.family.name == "acme"
    assert [(each.before, each.answer) for each in rendered.answers] == [("[ask]Who?[reply]", "Me.[next]")]


@pytest.mark.usefixtures("known")
def test_its_router_and_its_experts_are_told_apart_in_a_loaded_model() -> None:
    blocks = frozenset({"model.layers.1.mlp"})

    assert inventory.group_of("model.layers.1.mlp.switchboard", blocks) == "router"
    assert inventory.group_of("model.layers.1.mlp.experts", blocks) == "experts"
    assert inventory.rewritten_names() >= {"hammer", "tongs", "bellows"}


@pytest.mark.usefixtures("known")
def test_experts_are_exported_under_the_names_of_its_own_files(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    block = "base_model.model.model.layers.1.mlp.experts"
    shapes = {
        f"{block}.base_layer.lora_A.weight": (4 * RANK, 64),
        f"{block}.base_layer.lora_B.weight": (2 * 48, 4 * RANK),
        f"{block}.lora_A.weight": (4 * RANK, 48),
        f"{block}.lora_B.weight": (64, 4 * RANK),
    }
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, adapter / layout.ADAPTER_WEIGHTS)
    stacks = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    (adapter / layout.ADAPTER_CONFIG).write_text(json.dumps({"r": RANK, "target_parameters": stacks}))

    expert_layouts.convert(adapter, tmp_path / "vllm", layout_name="vllm", model_type="acme_moe")

    written = load_file(tmp_path / "vllm" / layout.ADAPTER_WEIGHTS)
    assert set(written) == {
        f"base_model.model.model.layers.1.anvil.experts.{expert}.{name}.lora_{factor}.weight"
        for expert in range(4)
        for name in ("hammer", "tongs", "bellows")
        for factor in "AB"
    }
    config = json.loads((tmp_path / "vllm" / layout.ADAPTER_CONFIG).read_text())
    assert config["target_modules"] == ["bellows", "hammer", "tongs"]


@pytest.mark.parametrize("name", catalog.entries())
def test_every_model_of_the_catalog_is_of_a_known_family_and_type(name: str) -> None:
    entry = catalog.get(name)

    assert entry.family in {family.name for family in families.ALL}
    assert families.of_config(entry.config) == families.of_config({"architectures": [entry.architecture]})


def test_no_two_families_have_a_name_or_a_type_in_common() -> None:
    types = [each for family in families.ALL for each in family.model_types]

    assert len({family.name for family in families.ALL}) == len(families.ALL)
    assert len({each.name for each in types}) == len({each.class_name for each in types}) == len(types)
