"""The factored experts give the numbers of PEFT's own way, which adds the adapter to the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Glm4MoeConfig
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeExperts

from lorajob_runtime.train.lora import experts

HIDDEN, INNER, COUNT, CHOSEN, TOKENS = 24, 16, 6, 3, 17
BOTH = ("experts.gate_up_proj", "experts.down_proj")


class Block(nn.Module):
    """Fused experts as transformers has them, given their routing."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        config = Glm4MoeConfig(hidden_size=HIDDEN, moe_intermediate_size=INNER, n_routed_experts=COUNT)
        config._experts_implementation = "grouped_mm"
        self.experts = Glm4MoeExperts(config).to(dtype)
        for parameter in self.experts.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        output: Tensor = self.experts(x, index, weights)
        return output


def block(targets: tuple[str, ...] = BOTH, *, rank: int = 4, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[], target_parameters=list(targets))
    model = get_peft_model(Block(dtype), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.train()


def routed(*, used: int = COUNT, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, and each one's experts (of the first `used`) with their weights."""
    generator = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randperm(used, generator=generator)[:CHOSEN] for _ in range(TOKENS)])
    weights = torch.rand(TOKENS, CHOSEN, generator=generator)
    return torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype), index, weights


def results(model: Any, inputs: tuple[Tensor, Tensor, Tensor], *, recompute: bool = False) -> dict[str, Tensor]:
    """Output, and the gradients of x, of the routing weights and of the adapter."""
    x, index, weights = inputs[0].clone().requires_grad_(), inputs[1], inputs[2].clone().requires_grad_()
    arguments = (x, index, weights)
    output = checkpoint(model, *arguments, use_reentrant=False) if recompute else model(*arguments)
    (output.float() * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    adapter = {name: item.grad for name, item in model.named_parameters() if item.requires_grad}
    return {"output": output.detach(), "x": x.grad, "weights": weights.grad, **adapter}


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest number of each."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.float().abs().max())
        assert scale > 0, name
        torch.testing.assert_close(ours[name], value, atol=tolerance * scale, rtol=0, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("targets", [BOTH, BOTH[:1], BOTH[1:]], ids=["both", "gate_up", "down"])
@pytest.mark.parametrize("used", [COUNT, CHOSEN], ids=["all experts", "half of the experts idle"])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("in_turn", [True, False], ids=["in turn", "grouped"])
def test_output_and_every_gradient_are_those_of_peft(
    targets: tuple[str, ...], used: int, rank: int, in_turn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "goes_in_turn", lambda _: in_turn)
    ours = block(targets, rank=rank)
    assert experts.factor(ours) == 1

    assert_same(results(ours, routed(used=used)), results(block(targets, rank=rank), routed(used=used)))


def test_made_again_under_activation_checkpointing_they_are_the_same_bit_for_bit() -> None:
    plain, checkpointed = block(), block()
    experts.factor(plain)
    experts.factor(checkpointed)

    ours = results(checkpointed, routed(), recompute=True)

    for name, value in results(plain, routed()).items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("in_turn", [True, False], ids=["in turn", "grouped"])
def test_in_bf16_they_are_as_near_to_the_exact_ones_as_pefts(in_turn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "goes_in_turn", lambda _: in_turn)
    exact = results(block(), routed())
    ours = block(dtype=torch.bfloat16)
    experts.factor(ours)

    got = results(ours, routed(dtype=torch.bfloat16))
    theirs = results(block(dtype=torch.bfloat16), routed(dtype=torch.bfloat16))

    for name, value in exact.items():
        error, theirs_error = (float((each[name].float() - value).norm() / value.norm()) for each in (got, theirs))
        assert error < max(0.02, 1.5 * theirs_error), name


def test_an_idle_expert_gets_a_gradient_of_zero_and_never_nan() -> None:
    model = block()
    experts.factor(model)

    found = results(model, routed(used=CHOSEN))

    a = found["base_model.model.experts.lora_A.default.weight"].view(COUNT, -1, INNER)
    assert torch.count_nonzero(a[CHOSEN:]) == 0
    assert all(torch.isfinite(value).all() for value in found.values())


def test_nothing_as_large_as_the_weights_is_made_or_kept() -> None:
    model = block()
    experts.factor(model)
    weights = {item.untyped_storage().data_ptr() for item in model.parameters()}
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        x, index, routing = routed()
        model(x.requires_grad_(), index, routing.requires_grad_())

    rows = TOKENS * CHOSEN
    assert sorted(shape for shape in kept if len(shape) == 2) == sorted(
        [(TOKENS, HIDDEN), (rows, 1), (rows, 2 * INNER), (rows, 4), (rows, 4)]
    )
    assert not [shape for shape in kept if len(shape) > 2]


def test_experts_with_another_activation_keep_pefts_own_way(caplog: pytest.LogCaptureFixture) -> None:
    model = block()
    model.get_base_model().experts.get_base_layer().act_fn = nn.GELU()

    assert experts.factor(model) == 0
    assert "Glm4MoeExperts trains in PEFT's own way" in caplog.text
