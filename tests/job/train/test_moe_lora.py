"""LoRA on mixtures of experts: what gets it, that plain PEFT reloads it exactly, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

import families
from family_models import FamilyModels, save, shake
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.train.lora import attach, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks

LAYERS = families.LAYERS
ATTENTION = {"q_proj": LAYERS, "k_proj": LAYERS, "v_proj": LAYERS, "o_proj": LAYERS}
MLP = {"gate_proj": LAYERS, "up_proj": LAYERS, "down_proj": LAYERS}
TOKENS = torch.randint(3, families.VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))


def stacks(count: int) -> dict[str, int]:
    return {"experts.gate_up_proj": count, "experts.down_proj": count}


def tuned(models: FamilyModels, family: str, spec: LoraSpec | None = None, *, experts: bool = True) -> nn.Module:
    """A family's model with an adapter that does something."""
    return shake(attach.attach(models.load(family), spec or LoraSpec(dropout=0.0), seed=3, experts=experts))


@pytest.mark.parametrize(
    ("family", "targets", "groups"),
    [
        ("qwen3", ATTENTION | MLP, {"attention", "dense"}),
        ("qwen2.5", ATTENTION | MLP, {"attention", "dense"}),
        ("hunyuan", ATTENTION | MLP | stacks(LAYERS), {"attention", "shared", "experts"}),
        ("glm-4.5", ATTENTION | MLP | stacks(LAYERS - 1), {"attention", "dense", "shared", "experts"}),
        ("minimax-m2", ATTENTION | stacks(LAYERS), {"attention", "experts"}),
    ],
)
def test_the_recipe_reaches_attention_dense_shared_and_routed_experts(
    family_models: FamilyModels, family: str, targets: dict[str, int], groups: set[str]
) -> None:
    report = attach.report(tuned(family_models, family), dropout=0.0)

    assert report.targets == targets
    assert set(report.groups) == groups
    assert sum(group.parameters for group in report.groups.values()) == report.trained_parameters


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_without_experts_everything_else_still_gets_it(family_models: FamilyModels, family: str) -> None:
    report = attach.report(tuned(family_models, family, experts=False), dropout=0.0)

    expected = ATTENTION if family == "minimax-m2" else ATTENTION | MLP
    assert report.targets == expected


@pytest.mark.parametrize("family", families.FAMILIES)
def test_plain_peft_reloads_an_adapter_without_any_difference(
    family_models: FamilyModels, family: str, tmp_path: Path
) -> None:
    model = tuned(family_models, family).eval()
    save(model, tmp_path)

    reloaded = PeftModel.from_pretrained(family_models.load(family), str(tmp_path)).eval()

    with torch.no_grad():
        assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)
        assert not torch.equal(reloaded(TOKENS).logits, family_models.load(family)(TOKENS).logits)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_trains_gives_pefts_own_logits_and_gradients(family_models: FamilyModels, family: str) -> None:
    spec = LoraSpec(dropout=0.0, router=family in families.MOE_FAMILIES)
    theirs, ours = (tuned(family_models, family, spec).train() for _ in range(2))
    linear.fuse(ours, DropoutMasks())

    logits = [model(TOKENS).logits for model in (theirs, ours)]
    for each in logits:
        each.log_softmax(-1)[..., 7].sum().backward()

    torch.testing.assert_close(logits[1], logits[0], atol=1e-5 * float(logits[0].abs().max()), rtol=0)
    expected = {name: item.grad for name, item in attach.trained(theirs).items()}
    for name, parameter in attach.trained(ours).items():
        tolerance = 1e-5 * float(expected[name].abs().max())
        assert tolerance > 0, name
        torch.testing.assert_close(parameter.grad, expected[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_saved_adapter_goes_back_into_training(family_models: FamilyModels, family: str) -> None:
    model = tuned(family_models, family)
    other = attach.attach(family_models.load(family), LoraSpec(dropout=0.0), seed=9, experts=True)

    attach.load_adapter(other, attach.adapter_state(model))

    for name, parameter in attach.trained(model).items():
        assert torch.equal(attach.trained(other)[name], parameter), name


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_the_router_gets_it_only_when_asked(family_models: FamilyModels, family: str, tmp_path: Path) -> None:
    model = tuned(family_models, family, LoraSpec(dropout=0.0, router=True)).eval()
    save(model, tmp_path)

    assert attach.report(model, dropout=0.0).groups["router"].targets == len(
        [name for name, _ in family_models.load(family).named_modules() if name.endswith(".experts")]
    )
    reloaded = PeftModel.from_pretrained(family_models.load(family), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize(
    ("targets", "experts", "expected"),
    [
        (("q_proj",), "auto", {"q_proj": LAYERS}),
        (("q_proj",), True, {"q_proj": LAYERS} | stacks(LAYERS - 1)),
        (("down_proj",), "auto", {"down_proj": LAYERS, "experts.down_proj": LAYERS - 1}),
        (("down_proj",), False, {"down_proj": LAYERS}),
        (("shared_experts.up_proj",), "auto", {"up_proj": LAYERS - 1}),
        (("layers.0.mlp.up_proj", "layers.1.self_attn.q_proj"), "auto", {"up_proj": 1, "q_proj": 1}),
        (("experts.down_proj",), "auto", {"experts.down_proj": LAYERS - 1}),
        (("layers.2.mlp.experts.gate_up_proj",), "auto", {"experts.gate_up_proj": 1}),
        (("lm_head", "w2"), "auto", {"lm_head": 1, "experts.down_proj": LAYERS - 1}),
    ],
)
def test_names_of_targets_mean_what_they_say(
    family_models: FamilyModels, targets: tuple[str, ...], experts: Any, expected: dict[str, int], tmp_path: Path
) -> None:
    spec = LoraSpec(dropout=0.0, targets=targets, experts=experts)
    model = tuned(family_models, "glm-4.5", spec, experts=experts is not False).eval()
    save(model, tmp_path)

    assert attach.report(model, dropout=0.0).targets == expected
    reloaded = PeftModel.from_pretrained(family_models.load("glm-4.5"), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(reloaded(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize(
    ("family", "spec", "words"),
    [
        ("glm-4.5", LoraSpec(targets=("q_proj", "qkv_proj")), "'qkv_proj': no weight of Glm4MoeForCausalLM"),
        ("glm-4.5", LoraSpec(targets=("gate_proj",)), "'gate_proj' without 'up_proj'"),
        ("glm-4.5", LoraSpec(targets=("gate",)), "lora.router: true"),
        ("minimax-m2", LoraSpec(targets=("up_proj",), experts=False), "only routed experts are called so"),
        ("qwen3", LoraSpec(experts=True), "lora.experts is true: Qwen3ForCausalLM has no experts"),
        ("qwen3", LoraSpec(router=True), "lora.router is true: Qwen3ForCausalLM has no router"),
    ],
)
def test_what_a_model_does_not_have_is_refused(
    family_models: FamilyModels, family: str, spec: LoraSpec, words: str
) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        attach.attach(family_models.load(family), spec, seed=1, experts=spec.experts is not False)


def test_a_target_that_peft_passes_over_ends_the_run(
    family_models: FamilyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as plain PEFT does it: the names of dense and shared projections mean the routed experts
    monkeypatch.setattr(
        attach.inventory, "peft_names", lambda *_: (["q_proj", "gate_proj", "up_proj", "down_proj"], [])
    )

    with pytest.raises(ConfigError, match=r"PEFT attached no adapter to model\.layers\.0\.mlp\.down_proj\.weight"):
        attach.attach(family_models.load("glm-4.5"), LoraSpec(dropout=0.0), seed=1, experts=True)


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_dropout_holds_for_all_but_the_experts_and_the_saved_config_says_none(
    family_models: FamilyModels, family: str
) -> None:
    model = tuned(family_models, family, LoraSpec(dropout=0.25))
    masks = DropoutMasks()
    linear.fuse(model, masks)
    model.train()

    drawn = []
    for micro_batch in (1, 1, 2):
        masks.start(micro_batch)
        drawn.append(model(TOKENS).logits.detach())

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])
    assert attach.report(model, dropout=0.25).without_dropout == ("experts",)
    assert attach.adapter_config(model, "base").lora_dropout == 0.0
    dropped = [each.lora_dropout["default"] for each in model.modules() if type(each) is linear.FusedLoraWeight]
    assert all(isinstance(each, nn.Dropout) and each.p == 0.25 for each in dropped)
    assert len(dropped) == (0 if family == "minimax-m2" else 3 * LAYERS)


def test_without_parameters_of_experts_peft_keeps_the_dropout(family_models: FamilyModels) -> None:
    model = tuned(family_models, "minimax-m2", LoraSpec(dropout=0.25), experts=False)

    assert attach.adapter_config(model, "base").lora_dropout == 0.25
    assert attach.report(model, dropout=0.25).without_dropout == ()


def test_dropout_that_nothing_can_have_is_told_too(family_models: FamilyModels) -> None:
    model = tuned(family_models, "minimax-m2", LoraSpec(dropout=0.25, targets=("w2",)))

    assert attach.report(model, dropout=0.25).without_dropout == ("experts",)
    assert attach.report(model, dropout=0.0).without_dropout == ()


@pytest.mark.parametrize("family", families.MOE_FAMILIES)
def test_with_the_adapter_switched_off_the_base_model_answers(family_models: FamilyModels, family: str) -> None:
    model: Any = tuned(family_models, family)
    linear.fuse(model, DropoutMasks())
    outermost = [each for name, each in model.named_modules() if not name.endswith("base_layer")]
    assert not any(type(each) is ParamWrapper for each in outermost)
    model.eval()

    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(TOKENS).logits, family_models.load(family)(TOKENS).logits)
    assert not any(
        type(each) is ParamWrapper for name, each in model.named_modules() if not name.endswith("base_layer")
    )
