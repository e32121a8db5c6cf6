"""How runs are spread over GPUs by what they would take there, from the catalog's sizes alone."""

from __future__ import annotations

import dataclasses

import pytest

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.models import architecture, memory_plan, placement
from lorajob_runtime.models.gpu_sizes import GIBIBYTE, GPU_SIZES
from lorajob_runtime.models.shapes import Architecture

H100 = round(GPU_SIZES[80] * GIBIBYTE)
H200 = round(GPU_SIZES[141] * GIBIBYTE)


def shapes(name: str) -> Architecture:
    found = architecture.read(catalog.get(name).config)
    assert found is not None
    return found


def spec(**groups: dict[str, object]) -> RunSpec:
    return parse(groups)


@pytest.mark.parametrize(
    ("model", "gpus", "nodes", "gpu_bytes", "sharding", "replicas", "experts", "fits"),
    [
        ("qwen3-8b", 8, 2, H100, "ddp", 1, False, True),
        ("qwen3-8b", 1, 1, 14 * GIBIBYTE, "ddp", 1, False, False),
        ("hunyuan-a13b", 4, 1, H100, "fsdp", 1, True, True),
        ("glm-4.5-air", 8, 2, H100, "fsdp", 2, True, True),
        ("glm-4.5-air", 1, 8, H100, "fsdp", 1, True, True),
        ("minimax-m2", 8, 1, H100, "fsdp", 1, False, False),
        ("minimax-m2", 8, 1, H200, "fsdp", 1, True, True),
        ("minimax-m2", 8, 2, H100, "fsdp", 1, True, True),
        ("minimax-m2", 4, 1, H100, "fsdp", 1, False, False),
    ],
)
def test_a_model_is_replicated_where_it_fits_and_sharded_where_not(
    model, gpus, nodes, gpu_bytes, sharding, replicas, experts, fits
) -> None:
    placed = placement.choose(shapes(model), spec(), gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes)

    assert (placed.estimate.sharding, placed.replicas, placed.experts, placed.fits) == (
        sharding,
        replicas,
        experts,
        fits,
    )
    assert (placed.estimate.total <= gpu_bytes) == fits


@pytest.mark.parametrize(
    ("model", "gpus", "nodes", "sharding", "replicas"),
    [
        ("qwen3-8b", 8, 1, "ddp", 1),
        ("glm-4.5-air", 1, 1, "ddp", 1),
        ("glm-4.5-air", 8, 2, "fsdp", 2),
        ("minimax-m2", 8, 2, "fsdp", 1),
    ],
)
def test_where_the_memory_is_not_known_small_weights_are_replicated(model, gpus, nodes, sharding, replicas) -> None:
    placed = placement.choose(shapes(model), spec(), gpus=gpus, nodes=nodes, gpu_bytes=None)

    assert (placed.estimate.sharding, placed.replicas, placed.fits) == (sharding, replicas, None)
    assert placed.experts == shapes(model).has_experts


@pytest.mark.parametrize(
    ("groups", "field", "value"),
    [
        ({"train": {"sharding": "fsdp"}}, "sharding", "fsdp"),
        ({"train": {"sharding": "ddp"}}, "sharding", "ddp"),
        ({"lora": {"experts": False}}, "experts", False),
        ({"lora": {"experts": True}}, "experts", True),
        ({"lora": {"targets": ["q_proj"]}}, "experts", False),
        ({"lora": {"targets": ["w2"]}}, "experts", True),
    ],
)
def test_what_the_spec_says_outright_is_not_varied(groups, field, value) -> None:
    placed = placement.choose(shapes("hunyuan-a13b"), spec(**groups), gpus=2, gpu_bytes=H100)

    assert getattr(placed.estimate, field) == value


def test_activations_are_saved_where_there_is_room_and_recomputed_where_not() -> None:
    saved, recomputed = (
        placement.choose(shapes("qwen3-8b"), spec(), gpus=1, gpu_bytes=size).estimate
        for size in (round(GPU_SIZES[40] * GIBIBYTE), 19 * GIBIBYTE)
    )

    assert not saved.gradient_checkpointing
    assert recomputed.gradient_checkpointing
    assert recomputed.activations < saved.activations / 5
    assert dataclasses.replace(recomputed, activations=0, transient=0, reserve=0, recompute_every=0) == (
        dataclasses.replace(saved, activations=0, transient=0, reserve=0)
    )


def test_no_more_layers_are_recomputed_than_have_to_be() -> None:
    found = []
    for tenth in range(160, 400):
        gpu_bytes = tenth * GIBIBYTE // 10
        placed = placement.choose(shapes("qwen3-8b"), spec(), gpus=1, gpu_bytes=gpu_bytes)
        if placed.fits:
            found.append(placed.estimate.recompute_every or 99)
            assert placed.estimate.total <= gpu_bytes

    assert found == sorted(found)
    assert set(found) == {1, 2, 3, 4, 8, 99}
    assert {each for each in found if each < 99} <= set(memory_plan.RECOMPUTE_EVERY)


@pytest.mark.parametrize(("model", "every"), [("qwen3-8b", 1), ("qwen3-8b", 4), ("glm-4.5-air", 3), ("glm-4.5-air", 0)])
def test_the_fewer_layers_are_recomputed_the_more_memory_it_takes(model: str, every: int) -> None:
    totals = [
        memory_plan.estimate(shapes(model), spec(), gpus=8, sharding="fsdp", recompute_every=number).total
        for number in (every, 0)
    ]
    counted = memory_plan.estimate(shapes(model), spec(), gpus=8, sharding="fsdp", recompute_every=every)

    assert counted.gradient_checkpointing == (every > 0)
    assert totals[0] < totals[1] if every else totals[0] == totals[1]


@pytest.mark.parametrize(("asked", "tokens"), [(None, 1024), (200, 1024), (4096, 4096), (10**6, 16 * 1024)])
def test_a_micro_batch_that_is_asked_for_is_what_the_memory_is_estimated_for(asked: int | None, tokens: int) -> None:
    wanted = spec(train={"tokensPerMicroBatch": asked})
    chosen = placement.choose(shapes("qwen3-8b"), wanted, gpus=1, gpu_bytes=H100).estimate

    most = placement.most_tokens(shapes("qwen3-8b"), wanted, chosen, gpus=1, nodes=1, gpu_bytes=H100)

    assert chosen.tokens == tokens
    assert (most == tokens) == (asked is not None)


def test_sharding_divides_the_weights_and_nothing_of_the_adapter() -> None:
    whole, half = (
        memory_plan.estimate(shapes("qwen3-8b"), spec(), gpus=2, sharding=sharding) for sharding in ("ddp", "fsdp")
    )

    assert whole.weights == 2 * half.weights == 2 * shapes("qwen3-8b").parameters
    assert whole.adapter == half.adapter == 16 * whole.trained_parameters
    assert (whole.gathered_layers, whole.gathered_embedding_and_head) == (0, 0)
    assert half.gathered_layers == 3 * 2 * max(layer.parameters for layer in shapes("qwen3-8b").layers)
    assert half.gathered_embedding_and_head == 2 * shapes("qwen3-8b").embedding_and_head


def test_a_model_quantised_to_four_bits_takes_a_third() -> None:
    plain = memory_plan.estimate(shapes("qwen3-8b"), spec(), gpus=1)
    quantised = memory_plan.estimate(shapes("qwen3-8b"), spec(model={"quantize": "nf4"}), gpus=1)

    assert 0.3 < quantised.weights / plain.weights < 0.4


@pytest.mark.parametrize("model", catalog.entries())
def test_more_gpus_never_need_more_memory_each(model: str) -> None:
    totals = [
        placement.choose(shapes(model), spec(train={"sharding": "fsdp"}), gpus=gpus, gpu_bytes=0).estimate.total
        for gpus in (2, 4, 8)
    ]

    assert totals == sorted(totals, reverse=True)


def test_the_fewest_gpus_that_are_enough_go_down_with_their_memory() -> None:
    fewest = []
    for size in (40, 80, 141, 192):
        enough = placement.min_gpus(shapes("glm-4.5-air"), spec(), gpu_bytes=round(GPU_SIZES[size] * GIBIBYTE))
        assert enough is not None
        fewest.append(enough.gpus * enough.nodes)

    assert fewest == [16, 4, 2, 2]
    assert placement.min_gpus(shapes("minimax-m2"), spec(), gpu_bytes=10 * GIBIBYTE) is None


@pytest.mark.parametrize(
    ("model", "size", "experts", "enough", "fewer"),
    [
        ("hunyuan-a13b", 80, True, (3, 1), (2, 1)),
        ("minimax-m2", 141, True, (5, 1), (4, 1)),
        ("minimax-m2", 40, False, (8, 7), (8, 6)),
    ],
)
def test_any_number_of_gpus_is_tried_on_one_node_and_then_any_of_nodes(model, size, experts, enough, fewer) -> None:
    wanted, gpu_bytes = spec(lora={"experts": experts}), round(GPU_SIZES[size] * GIBIBYTE)

    found = placement.min_gpus(shapes(model), wanted, gpu_bytes=gpu_bytes)

    assert found is not None
    assert (found.gpus, found.nodes) == enough
    gpus, nodes = fewer
    assert not placement.choose(shapes(model), wanted, gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes).fits


@pytest.mark.parametrize(("shards", "each"), [(8, 8), (32, 2), (40, 2), (64, 1)])
def test_experts_that_gpus_do_not_divide_leave_padding_in_the_shards(shards: int, each: int) -> None:
    layer = shapes("hunyuan-a13b").layers[0]
    stacks = layer.of("experts")

    assert [stack.copies for stack in stacks] == [64, 64]
    assert [stack.shard_size(shards) * 64 for stack in stacks] == [each * stack.parameters for stack in stacks]
    assert layer.shard_size(shards) * shards >= layer.parameters


def test_a_micro_batch_takes_the_room_that_is_left() -> None:
    chosen = placement.choose(shapes("qwen3-8b"), spec(), gpus=1, gpu_bytes=40 * GIBIBYTE).estimate

    tokens = placement.most_tokens(shapes("qwen3-8b"), spec(), chosen, gpus=1, nodes=1, gpu_bytes=40 * GIBIBYTE)

    larger = memory_plan.estimate(shapes("qwen3-8b"), spec(), gpus=1, tokens=tokens)
    assert chosen.tokens < tokens < placement.GPU_TOKENS
    assert 0.98 * 40 * GIBIBYTE < larger.total <= 40 * GIBIBYTE


@pytest.mark.parametrize(("model", "gpus"), [("qwen3-8b", 1), ("glm-4.5-air", 8), ("hunyuan-a13b", 4)])
@pytest.mark.parametrize("asked", [None, 2048])
def test_micro_batches_are_usually_smaller_than_the_largest_that_fits(model: str, gpus: int, asked: int | None) -> None:
    wanted = spec(train={"tokensPerMicroBatch": asked})
    chosen = placement.choose(shapes(model), wanted, gpus=gpus, gpu_bytes=H200).estimate
    given = {"gpus": gpus, "nodes": 1, "gpu_bytes": H200}

    usual = placement.usual_tokens(shapes(model), wanted, chosen, **given)

    most = placement.most_tokens(shapes(model), wanted, chosen, **given)
    assert usual == asked if asked else chosen.tokens <= usual < most
