"""How long a step would take: by table over models, numbers of GPUs and what connects them."""

from __future__ import annotations

import functools
import itertools

import pytest

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.models import architecture, gpu_speeds, kernel_costs, memory_plan, step_time
from lorajob_runtime.models.gpu_sizes import GPU_SIZES
from lorajob_runtime.models.gpu_speeds import NETWORKS, GpuSpeed, Network
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.models.step_time import StepTime

DENSE = ("qwen2.5-coder-7b", "qwen3-8b")
MIXTURES = ("hunyuan-a13b", "glm-4.5-air", "minimax-m2")
COUNTS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4), (8, 8))
PCIE = GpuSpeed(teraflops=989, memory=3.35e12, link=32e9)


@functools.cache
def _shapes(model: str) -> Architecture:
    shapes = architecture.read(catalog.get(model).config)
    assert shapes is not None
    return shapes


def _h100() -> GpuSpeed:
    found = gpu_speeds.named("h100")
    assert found is not None
    return found.speed


def _step(
    model: str,
    *,
    gpus: int = 1,
    nodes: int = 1,
    gpu: GpuSpeed | None = None,
    tokens: int = 2048,
    micro_batches: int = 1,
    network: Network = "infiniband",
    sharding: str = "ddp",
    replicas: int = 1,
    recompute_every: int = 0,
    experts: bool | None = None,
    quantize: str | None = None,
    precision: str = "auto",
) -> StepTime:
    spec: RunSpec = parse({"model": {"name": model, "quantize": quantize}, "train": {"precision": precision}})
    chosen = memory_plan.estimate(
        _shapes(model),
        spec,
        gpus=gpus,
        nodes=nodes,
        sharding="fsdp" if sharding == "fsdp" else "ddp",
        replicas=replicas,
        recompute_every=recompute_every,
        experts=experts,
    )
    return step_time.estimate(
        _shapes(model),
        spec,
        chosen,
        gpu or _h100(),
        gpus=gpus,
        nodes=nodes,
        tokens=tokens,
        micro_batches=micro_batches,
        row_tokens=140,
        network=network,
    )


@pytest.mark.parametrize("model", [*DENSE, *MIXTURES])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_the_parts_of_a_step_are_all_of_it_and_none_is_negative(
    model: str, count: tuple[int, int], network: Network, sharding: str
) -> None:
    gpus, nodes = count

    step = _step(model, gpus=gpus, nodes=nodes, network=network, sharding=sharding)

    assert all(seconds >= 0 for seconds in step.parts.values())
    assert step.total == pytest.approx(sum(step.parts.values()))
    assert min(step.products, step.kernels, step.launches) > 0


@pytest.mark.parametrize("model", [*DENSE, *MIXTURES])
@pytest.mark.parametrize("gpu", [None, PCIE], ids=["nvlink", "pcie"])
@pytest.mark.parametrize("network", NETWORKS)
def test_more_gpus_with_whole_weights_train_more_tokens_a_second(
    model: str, gpu: GpuSpeed | None, network: Network
) -> None:
    """Each GPU brings its own rows: only the sum of gradients grows, and from one network to the next it jumps."""
    paces = [
        gpus * nodes / _step(model, gpus=gpus, nodes=nodes, gpu=gpu, network=network).total
        for gpus, nodes in COUNTS
        if nodes == 1
    ]

    assert all(fewer < more <= 2 * fewer for fewer, more in itertools.pairwise(paces))


@pytest.mark.parametrize("model", DENSE)
def test_dense_models_keep_nearly_all_of_their_speed_on_eight_nodes(model: str) -> None:
    one, many = _step(model), _step(model, gpus=8, nodes=8)

    assert many.total < 1.05 * one.total


@pytest.mark.parametrize("model", [*DENSE, *MIXTURES])
def test_one_gpu_has_nobody_to_send_anything_to(model: str) -> None:
    step = _step(model)

    assert step.gathers == step.gradient_sum == 0


@pytest.mark.parametrize("model", MIXTURES)
def test_a_slower_link_never_makes_a_step_shorter(model: str) -> None:
    nodes = [_step(model, gpus=8, nodes=2, network=network, sharding="fsdp") for network in NETWORKS]
    inside = [_step(model, gpus=8, gpu=gpu, sharding="fsdp") for gpu in (None, PCIE)]

    for fast, slow in (nodes, inside):
        assert fast.gathers < slow.gathers
        assert fast.gradient_sum < slow.gradient_sum
        assert (fast.products, fast.kernels) == (slow.products, slow.kernels)


def test_weights_sharded_within_nodes_are_gathered_as_fast_over_any_network() -> None:
    ethernet, infiniband = (
        _step("glm-4.5-air", gpus=8, nodes=2, sharding="fsdp", replicas=2, network=network)
        for network in ("ethernet", "infiniband")
    )

    assert ethernet.gathers == infiniband.gathers == _step("glm-4.5-air", gpus=8, sharding="fsdp").gathers
    assert ethernet.gradient_sum > 10 * infiniband.gradient_sum


def test_weights_are_gathered_for_every_micro_batch_and_gradients_summed_once() -> None:
    one, four = (_step("hunyuan-a13b", gpus=8, sharding="fsdp", tokens=4096, micro_batches=count) for count in (1, 4))

    assert four.gathers > 2 * one.gathers
    assert four.gradient_sum == one.gradient_sum
    assert four.optimizer == one.optimizer


@pytest.mark.parametrize("model", [*DENSE, *MIXTURES])
def test_recomputing_takes_one_more_forward_pass_of_the_layers_that_are(model: str) -> None:
    saved, half, all_of_them = (_step(model, recompute_every=every) for every in (0, 2, 1))

    for part in ("products", "kernels", "launches"):
        more = getattr(all_of_them, part) - getattr(saved, part)
        assert 0.2 < more / getattr(saved, part) < 0.6
        assert getattr(half, part) - getattr(saved, part) == pytest.approx(more / 2, rel=0.03)


def test_four_bit_weights_are_unpacked_for_every_product() -> None:
    whole, packed = _step("qwen3-8b"), _step("qwen3-8b", quantize="nf4")

    assert 1.05 < packed.products / whole.products < 1.5
    assert packed.kernels == whole.kernels


def test_plain_fp32_takes_several_times_as_long() -> None:
    assert _step("qwen3-8b", precision="fp32").total > 5 * _step("qwen3-8b").total


@pytest.mark.parametrize("model", MIXTURES)
def test_few_tokens_have_the_experts_weights_read_for_little(model: str) -> None:
    few, many = _step(model, tokens=512), _step(model, tokens=8192)

    assert few.products > many.products / 8
    assert _step("qwen3-8b", tokens=512).products == pytest.approx(_step("qwen3-8b", tokens=8192).products / 16)


@pytest.mark.parametrize("model", MIXTURES)
def test_adapters_on_experts_cost_more_than_none(model: str) -> None:
    bare, adapted = _step(model, experts=False), _step(model, experts=True)

    assert bare.kernels < adapted.kernels
    assert bare.products == adapted.products
    assert bare.optimizer < adapted.optimizer


def test_small_micro_batches_wait_for_their_launches() -> None:
    small, large = _step("qwen3-8b", tokens=128), _step("qwen3-8b", tokens=8192)

    assert small.launches > 0.3 * small.total
    assert large.launches < 0.1 * large.total


def test_a_step_of_qwen3_takes_about_what_its_roofline_says() -> None:
    """44 us a token for the products of frozen weights on an H100, and 2.5 for the head."""
    products = _step("qwen3-8b").products / 2048

    assert products == pytest.approx(46.5e-6, rel=0.05)


@pytest.mark.parametrize("model", catalog.entries())
@pytest.mark.parametrize("adapted", [True, False])
def test_every_layer_of_the_catalog_has_a_row_of_its_own_kind(model: str, adapted: bool) -> None:
    shapes = _shapes(model)
    for layer in shapes.layers:
        row = kernel_costs.of_layer(shapes, layer, adapted_experts=adapted)

        assert (row.experts == "none") is (layer.experts_per_token == 0)
        assert row.head_norms == shapes.head_norms


def test_every_size_of_gpu_stands_for_one_that_is_known() -> None:
    assert all(gpu_speeds.of_size(gigabytes).teraflops > 0 for gigabytes in GPU_SIZES)
