"""Products with frozen weights in FP8: their numbers, on a CPU that computes them too, and where they are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_runs import random_rows, steps_of, write_run
from transformers import AutoModelForCausalLM

import families
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec, parse
from lorajob_runtime.models import architecture, memory_plan, placement, preflight
from lorajob_runtime.run import host_checks
from lorajob_runtime.run.host_checks import Machine
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train import loop
from lorajob_runtime.train.lora import attach, base_product, fp8_product, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks


def off(left: Tensor, right: Tensor) -> float:
    """How far apart, as a share of the second's length."""
    left, right = left.detach().double(), right.detach().double()
    return float(torch.linalg.vector_norm(left - right) / torch.linalg.vector_norm(right))


def weight_of(outputs: int, inputs: int) -> nn.Parameter:
    # rows and columns of very different sizes, which one scale for all would lose
    values = torch.randn(outputs, inputs) * torch.logspace(-3, 1, outputs)[:, None] * torch.logspace(-1, 1, inputs)
    return nn.Parameter(values.bfloat16(), requires_grad=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(1, 16, 32), (33, 64, 48), (128, 256, 16)])
@pytest.mark.parametrize("size", [1e-7, 1.0, 1e4])
def test_both_products_are_those_of_the_numbers_but_for_rounding(
    dtype: torch.dtype, tokens: int, inputs: int, outputs: int, size: float
) -> None:
    torch.manual_seed(0)
    plain = weight_of(outputs, inputs)
    weight = fp8_product.quantized(plain)
    rows, gradient = (size * torch.randn(tokens, width).to(dtype) for width in (inputs, outputs))
    exact = plain.double()

    forward = fp8_product.forward(rows.to(dtype), weight, None)
    backward = fp8_product.backward(gradient.to(dtype), weight)

    assert (forward.dtype, backward.dtype) == (dtype, dtype)
    # e4m3 rounds each number by up to a sixteenth
    assert off(forward, rows.double() @ exact.t()) < 0.08
    assert off(backward, gradient.double() @ exact) < 0.08


def test_a_row_of_zeros_stays_one_and_a_bias_is_added() -> None:
    weight = fp8_product.quantized(weight_of(32, 16))
    bias = torch.randn(32).bfloat16()

    output = fp8_product.forward(torch.zeros(3, 16).bfloat16(), weight, bias)

    assert torch.equal(output, bias.expand(3, 32))


def test_scaling_rounds_nothing() -> None:
    rows = (torch.randn(50, 64) * torch.logspace(-6, 6, 50)[:, None]).bfloat16()

    quantised, scales = fp8_product._by_rows(rows)

    exponents = scales.log2()
    assert torch.equal(exponents, exponents.round())
    largest = quantised.float().abs().amax(dim=1)
    assert bool(((largest > 448 / 2 * 0.9) & (largest <= 448)).all())


def test_where_no_copy_is_attached_a_product_is_the_plain_one() -> None:
    weight, rows = weight_of(32, 16), torch.randn(5, 16).bfloat16()

    assert torch.equal(base_product.forward(rows, weight, None), rows @ weight.t())


def adapted(path: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    model = attach.attach(model, LoraSpec(rank=4, dropout=0.0), seed=1, experts=False).train()
    for name, item in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(item, std=0.02, generator=torch.Generator().manual_seed(2))
    linear.fuse(model, DropoutMasks())
    return model


def test_a_model_trains_with_them_and_answers_with_them(tiny_model: Path) -> None:
    plain = adapted(tiny_model)
    quantised = copy.deepcopy(plain)
    ids = torch.arange(5, 69).unsqueeze(0)

    count = fp8_product.quantize(quantised)

    losses = [model(input_ids=ids, labels=ids).loss for model in (plain, quantised)]
    for loss in losses:
        loss.backward()
    assert count == 2 * 7
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    gradients = [
        torch.cat([item.grad.flatten() for item in model.parameters() if item.requires_grad])
        for model in (plain, quantised)
    ]
    assert off(gradients[1], gradients[0]) < 0.15
    answers = [model.eval()(input_ids=ids).logits for model in (plain, quantised)]
    assert off(answers[1], answers[0]) < 0.1


def test_a_size_that_the_kernel_does_not_take_keeps_its_precision(tmp_path: Path) -> None:
    model = adapted(families.tiny("qwen3", tmp_path, intermediate_size=100))

    fp8_product.quantize(model)

    kept = [name for name, module in model.named_modules() if name.endswith("base_layer") and type(module) is nn.Linear]
    assert {name.split(".")[-2] for name in kept} == {"gate_proj", "up_proj", "down_proj"}


def test_a_run_goes_near_that_in_bf16_and_says_how_it_computes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8_product, "check", lambda _: None)
    runs = []
    for number, compute in enumerate((None, "fp8")):
        train = {"precision": "bf16", "maxSteps": 4, "learningRate": 1e-2, "baseCompute": compute}
        folder = write_run(tmp_path / str(number), tiny_model, random_rows(30), {"train": train})
        loop.train(train_job.loads(folder.train_job.read_text()), folder)
        runs.append([step["loss"] for step in steps_of(folder)])

    assert runs[1] == pytest.approx(runs[0], rel=0.02)
    assert runs[1] != runs[0]


@pytest.mark.parametrize(
    ("capability", "refused"), [(None, True), ((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False)]
)
def test_it_is_refused_where_the_device_has_none(capability: Any, refused: bool) -> None:
    if not refused:
        preflight.check_fp8(capability)
        return
    with pytest.raises(ConfigError, match="does not multiply FP8") as error:
        preflight.check_fp8(capability)
    assert error.value.path == "train.baseCompute"


def test_a_run_on_cpus_is_refused_before_anything_is_fetched_and_where_it_trains() -> None:
    spec = parse({"train": {"baseCompute": "fp8"}})

    with pytest.raises(ConfigError, match="a CPU does not multiply FP8"):
        host_checks.check_products(spec, Machine(processes=1, device="cpu"))
    with pytest.raises(ConfigError, match="a CPU does not multiply FP8"):
        fp8_product.check(torch.device("cpu"))
    host_checks.check_products(parse({}), Machine(processes=1, device="cpu"))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"model": {"quantize": "nf4"}}, "model.quantize 'nf4'"),
        ({"train": {"precision": "fp32"}}, "train.precision 'fp32'"),
        ({"train": {"sharding": "fsdp"}}, "train.sharding 'fsdp'"),
    ],
)
def test_what_it_cannot_be_beside_is_refused(groups: dict[str, Any], said: str) -> None:
    groups = groups | {"train": groups.get("train", {}) | {"baseCompute": "fp8"}}

    with pytest.raises(ConfigError, match=said):
        preflight.check(parse(groups), None)


def test_a_mixture_of_experts_is_refused_and_a_dense_model_is_whole_on_every_gpu() -> None:
    spec, plain = parse({"train": {"baseCompute": "fp8"}}), parse({})
    glm, qwen = (architecture.read(catalog.get(name).config) for name in ("glm-4.5-air", "qwen3-8b"))
    assert glm is not None
    assert qwen is not None

    with pytest.raises(ConfigError, match="mixture of experts"):
        preflight.check(spec, glm)
    preflight.check(spec, qwen)
    chosen = placement.choose(qwen, spec, gpus=8, gpu_bytes=16 * 2**30)
    assert (chosen.sharded, chosen.fits) == (False, False)
    totals = [memory_plan.estimate(qwen, each, gpus=1).total for each in (spec, plain)]
    assert totals[1] < totals[0] < 1.02 * totals[1]
