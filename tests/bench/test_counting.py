"""What bench/kernel_counts.py counts: operations one by one, a backward pass as torch does it, a layer's products."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import families

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
try:
    from counting.backward import backward
    from counting.layers import MicroBatch, count
    from counting.operations import Count, OperationCounter
finally:
    sys.path.pop(0)

from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.models import architecture

FLOAT = 4


def _counted(work: Callable[[], Any]) -> Count:
    with OperationCounter() as counter, counter.during("forward"):
        work()
    return sum(counter.counts["forward"].values(), Count())


@pytest.mark.parametrize(
    ("work", "kernels", "moved", "products"),
    [
        (lambda x, w: x + x, 1, 2 * 64, 0),
        (lambda x, w: x + w[:, :1].t(), 1, 64 + 16 + 64, 0),
        (lambda x, w: x.mul_(x[0]), 1, 64 + 16 + 64, 0),
        (lambda x, w: x + x[:1].expand(4, 4), 1, 64 + 16 + 64, 0),
        (lambda x, w: x.fill_(1), 1, 64, 0),
        (lambda x, w: x.copy_(w), 1, 2 * 64, 0),
        (lambda x, w: x.bernoulli_(0.5), 1, 64, 0),
        (lambda x, w: x.view(16).t().unsqueeze(0), 0, 0, 0),
        (lambda x, w: torch.empty_like(x), 0, 0, 0),
        (lambda x, w: x.bfloat16(), 1, 64 + 32, 0),
        (lambda x, w: x @ w, 1, 0, 2 * 4 * 4 * 4),
        (lambda x, w: x.addmm_(x, w), 1, 0, 2 * 4 * 4 * 4),
        (lambda x, w: torch.bmm(x.view(2, 2, 4), w.view(2, 4, 2)), 1, 0, 2 * 2 * 2 * 4 * 2),
        (lambda x, w: torch.zeros(4, device="cpu").add_(1), 0, 0, 0),
    ],
)
def test_an_operation_is_one_kernel_that_reads_and_writes_its_tensors_once(
    work: Callable[[Tensor, Tensor], Any], kernels: int, moved: int, products: int
) -> None:
    with FakeTensorMode():
        x, w = (torch.empty(4, 4, device="cuda") for _ in range(2))
        found = _counted(lambda: work(x, w))

    assert (found.kernels, found.moved, found.products) == (kernels, moved, products)


def test_an_operation_of_our_own_is_one_kernel() -> None:
    @torch.library.custom_op("counting_test::halves", mutates_args=())
    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        return x / 2, x / 2

    halves.register_fake(lambda x: (torch.empty_like(x), torch.empty_like(x)))
    with FakeTensorMode():
        x = torch.empty(4, 4, device="cuda")
        found = _counted(lambda: halves(x))

    assert (found.kernels, found.moved) == (1, 3 * 64)


def test_an_operation_of_our_own_that_changes_its_argument_reads_and_writes_it() -> None:
    @torch.library.custom_op("counting_test::halve_", mutates_args=("x",))
    def halve_(x: Tensor, by: Tensor) -> None:
        x /= by

    halve_.register_fake(lambda x, by: None)
    with FakeTensorMode():
        x, by = torch.empty(4, 4, device="cuda"), torch.empty(1, device="cuda")
        found = _counted(lambda: halve_(x, by))

    assert (found.kernels, found.moved) == (1, 2 * 64 + 4)


class _Twice(torch.autograd.Function):
    """Two outputs, an argument that is no tensor, and one that needs no gradient."""

    @staticmethod
    def forward(ctx: Any, scale: float, x: Tensor, frozen: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(frozen)
        ctx.scale = scale
        return scale * x, x @ frozen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (frozen,) = ctx.saved_tensors
        return None, gradients[0] * ctx.scale + gradients[1] @ frozen.t(), None


@pytest.mark.parametrize("uses_both", [True, False])
def test_a_backward_pass_gives_the_gradients_of_torchs_own(uses_both: bool) -> None:
    """Broadcasting, mixed types, inputs used twice, views, an output that nothing is made of."""

    def gradients(run: Callable[[Tensor], None]) -> list[Tensor]:
        torch.manual_seed(3)
        x, bias = torch.randn(6, 4, requires_grad=True), torch.randn(4, dtype=torch.float64, requires_grad=True)
        one, two = _Twice.apply(3.0, x * x, torch.randn(4, 4))
        mixed = one[:3].double() + bias
        if uses_both:
            mixed = mixed * two.chunk(2)[0] + torch.nn.functional.silu(two[3:])
        run((mixed.softmax(-1) * torch.arange(4)).sum())
        return [x.grad, bias.grad]  # type: ignore[list-item]

    ours, torchs = gradients(backward), gradients(lambda loss: loss.backward())

    assert all(torch.equal(one, other) for one, other in zip(ours, torchs, strict=True))


@pytest.fixture
def spec() -> RunSpec:
    return parse({"model": {"name": "qwen3-8b"}, "lora": {"rank": 8}})


@pytest.mark.parametrize(("family", "layer"), [("qwen3", 0), ("glm-4.5", 1), ("minimax-m2", 0)])
def test_a_layers_products_are_those_of_its_matrices_and_adapters(spec: RunSpec, family: str, layer: int) -> None:
    config = families.config(family).to_dict()
    shapes = architecture.read(config)
    assert shapes is not None
    batch = MicroBatch(documents=2, length=16, targets=4)

    (counted,) = count(config, spec, [batch], layer=layer)

    def expected(matrix: Any) -> int:
        """Through the frozen matrix, of experts as often as a token is sent to one, and through A and B."""
        copies = shapes.layers[layer].experts_per_token if matrix.copies > 1 else 1
        thin = 0 if matrix.group == "router" else spec.lora.rank * (matrix.inputs + matrix.outputs)
        return 2 * batch.tokens * copies * (matrix.inputs * matrix.outputs + thin)

    products = {name: sum(each.products for each in ops.values()) for name, ops in counted.layer.items()}
    assert products["forward"] == sum(expected(matrix) for matrix in shapes.layers[layer].matrices)
    assert 1 < products["backward"] / products["forward"] < 1.5
