"""Layers that read one input are computed together, and give what each gives alone, however they are called."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lorajob_runtime.train.lora import groups, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks
from lorajob_runtime.train.parallel.gradients import FlatGradients

NAMES = ("q", "k", "v")
WIDTH = 24
Order = tuple[str, ...]
EVERY_ORDER: list[Order] = [
    *itertools.permutations(NAMES),
    *itertools.product(NAMES, repeat=2),
    ("q", "k", "v", "q", "k", "v"),
    ("q", "q", "k", "k", "v", "v"),
    ("v", "q", "q", "v"),
]


class Projections(nn.Module):
    """Three layers of other widths, one with a bias; `order` says which are called, in `inputs` with what."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            nn.Linear(WIDTH, 40),
            nn.Linear(WIDTH, 16, bias=False),
            nn.Linear(WIDTH, 16, bias=False),
        )
        self.order: Order = NAMES
        self.inputs: tuple[int, ...] = (0,) * 6

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x, x * 2]
        outputs = [getattr(self, name)(inputs[self.inputs[place]]) for place, name in enumerate(self.order)]
        return torch.cat([each.tanh() * (place + 1) for place, each in enumerate(outputs)], dim=-1)


def projections(*, rank_of_k: int = 4) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=list(NAMES), rank_pattern={"k": rank_of_k})
    model = get_peft_model(Projections(), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model.train()


def grouped(**options: Any) -> Any:
    model = projections(**options)
    linear.fuse(model, DropoutMasks())
    groups.find(model, lambda: model(torch.zeros(1, WIDTH)))
    return model


def arranged(model: Any, order: Order, inputs: tuple[int, ...] = (0,) * 6) -> Any:
    model.base_model.model.order, model.base_model.model.inputs = order, inputs
    return model


def results(model: Any, call: Callable[[Any, Tensor], Tensor] = lambda model, x: model(x)) -> list[Tensor]:
    """Output, gradient of the input, and of every parameter that has one."""
    model.zero_grad()
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = call(model, x)
    output.square().sum().backward()
    trained = [item for item in model.parameters() if item.requires_grad]
    # of a layer that is not called PEFT gives no gradient, and a group that it belongs to zeros
    adapter = [torch.zeros_like(item) if item.grad is None else item.grad for item in trained]
    return [output.detach(), x.grad, *adapter]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()) + 1e-30, rtol=1e-5)


def group_of(model: Any, name: str) -> groups.Group:
    found: groups.Group = getattr(model.base_model.model, name).fused_group
    return found


def test_readers_of_one_tensor_are_found_by_watching() -> None:
    model = grouped()

    assert group_of(model, "q") is group_of(model, "k") is group_of(model, "v")
    assert len(group_of(model, "q").layers) == 3


def test_layers_that_read_equal_but_other_tensors_stay_alone() -> None:
    model = arranged(projections(), NAMES, (0, 1, 1))
    linear.fuse(model, DropoutMasks())
    groups.find(model, lambda: model(torch.zeros(1, WIDTH)))

    assert [len(group_of(model, name).layers) for name in NAMES] == [1, 2, 2]


@pytest.mark.parametrize("order", EVERY_ORDER, ids="-".join)
def test_in_any_order_of_calls_outputs_and_gradients_are_pefts(order: Order) -> None:
    ours, plain = arranged(grouped(), order), arranged(projections(), order)

    # twice, so that what one pass leaves behind would be seen
    for _ in range(2):
        assert_same(results(ours), results(plain))


@pytest.mark.parametrize("inputs", list(itertools.product((0, 1), repeat=3)), ids=str)
def test_with_other_inputs_than_the_groups_they_are_pefts(inputs: tuple[int, ...]) -> None:
    ours, plain = arranged(grouped(), NAMES, inputs), arranged(projections(), NAMES, inputs)

    assert_same(results(ours), results(plain))


@pytest.mark.parametrize("order", [NAMES, ("q", "v"), ("k", "q", "k"), ("q", "k", "v", "k")], ids="-".join)
def test_made_again_under_checkpointing_they_are_the_same_bit_for_bit(order: Order) -> None:
    model = arranged(grouped(), order)
    kept = results(model)

    made_again = results(model, lambda model, x: checkpoint(model, x, use_reentrant=False))

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(made_again, kept, strict=True))


def test_layers_of_other_ranks_are_computed_together() -> None:
    model = grouped(rank_of_k=2)

    assert len(group_of(model, "k").layers) == 3
    assert_same(results(model), results(projections(rank_of_k=2)))


def test_an_input_that_changed_in_place_between_two_calls_is_read_anew() -> None:
    model, plain = grouped().eval(), projections().eval()
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        model.base_model.model.q(x)
        x.mul_(2)

        torch.testing.assert_close(model.base_model.model.k(x), plain.base_model.model.k(x), atol=1e-5, rtol=1e-5)


def test_outputs_computed_without_gradients_are_not_taken_where_gradients_are_wanted() -> None:
    model = grouped()
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        model.base_model.model.q(x)

    assert model.base_model.model.k(x).requires_grad


def test_nothing_waits_after_a_pass_in_which_all_were_called() -> None:
    model = grouped()
    results(model)

    waiting = group_of(model, "q")._waiting
    assert waiting.input is None
    assert not waiting.outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_laid_out_are_added_to_the_buffer_and_are_those_of_autograd(dtype: torch.dtype) -> None:
    plain, ours = projections(), grouped()
    for model in (plain, ours):
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
    linear.fuse(plain, DropoutMasks())
    buffer = FlatGradients(groups.lay_out(ours))

    def backward(model: Any) -> None:
        x = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
        model(x).float().square().sum().backward()

    for model in (plain, ours):
        backward(model)
        backward(model)

    expected = [item.grad for item in plain.parameters() if item.requires_grad]
    found = [item.grad for item in ours.parameters() if item.requires_grad]
    assert all(item.untyped_storage()._cdata == buffer.buffer.untyped_storage()._cdata for item in found)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("is_laid_out", [True, False])
def test_copies_of_the_factors_follow_every_step_of_a_fused_optimizer(is_laid_out: bool) -> None:
    model = grouped()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    if is_laid_out:
        groups.lay_out(model)
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=0.1, fused=True)
    factors = group_of(model, "q").factors
    for _ in range(3):
        before = factors.current(torch.bfloat16)[0].clone()
        model(torch.randn(3, WIDTH, dtype=torch.bfloat16)).float().sum().backward()

        optimizer.step()

        stacked, b = factors.current(torch.bfloat16)
        assert not torch.equal(stacked, before)
        assert torch.equal(stacked, torch.cat(factors.a).bfloat16())
        assert all(torch.equal(copy, item.bfloat16()) for copy, item in zip(b, factors.b, strict=True))


def test_a_model_may_write_to_each_output() -> None:
    model = grouped()
    x = torch.randn(5, WIDTH)

    def total(limit: Callable[[Tensor], Tensor]) -> Tensor:
        base = model.base_model.model
        return torch.stack([limit(getattr(base, name)(x)).sum() for name in NAMES]).sum()

    results = []
    for limit in (lambda each: each.clamp(-0.5, 0.5), lambda each: each.clamp_(-0.5, 0.5)):
        model.zero_grad()
        total(limit).backward()
        results.append([item.grad.clone() for item in model.parameters() if item.requires_grad])

    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_what_a_pass_that_was_cut_short_left_behind_can_be_let_go_of() -> None:
    model = grouped()
    x = torch.randn(5, WIDTH)
    model.base_model.model.q(x)
    waiting = model.base_model.model.q.fused_group._waiting
    assert waiting.outputs

    groups.forget(model)

    assert not waiting.outputs
    assert waiting.input is None
