"""How a run is spread over its GPUs, and how many GPUs are enough, by the memory that each way would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models.gpu_sizes import GPU_COUNTS
from lorajob_runtime.models.lora_weights import adapter_parameters, wants_experts
from lorajob_runtime.models.memory_plan import (
    ACTIVATION_SHARE,
    RECOMPUTE_EVERY,
    Estimate,
    Precision,
    Sharding,
    estimate,
)
from lorajob_runtime.models.shapes import Architecture

GPU_TOKENS = 16_384
"""Tokens of a micro-batch on a GPU: enough to fill it."""

UNKNOWN_GPU_WEIGHTS = 40 * 10**9
"""Weights up to this are taken to fit on one GPU whose memory nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a run is spread over its GPUs. `experts`: routed experts get an adapter.

    `replicas`, of sharded weights: 1 where the shards of all GPUs are one model, as many as nodes where each node
    holds one.
    """

    sharded: bool
    experts: bool
    replicas: int = 1


@dataclass(frozen=True, kw_only=True)
class EstimatedPlacement(Placement):
    """A placement with what it takes. `fits` is None where the GPUs' memory is not known."""

    fits: bool | None
    estimate: Estimate


def choose(
    arch: Architecture,
    spec: RunSpec,
    *,
    gpus: int,
    nodes: int = 1,
    gpu_bytes: int | None,
    precision: Precision | None = None,
    experts: bool | None = None,
) -> EstimatedPlacement:
    """The placement of a run on GPUs of `gpu_bytes` each: the first of these that fits, else the most frugal.

    With the experts that the recipe wants before without them; for each of the two the whole model on every GPU, then
    sharded within each node, then sharded over all GPUs; for each of these with activations saved, then those of some
    layers recomputed, then all. What the spec says outright (lora.experts, train.sharding, train.gradientCheckpointing)
    is not varied. One GPU has nothing to shard over. `experts`: what was decided before, where it was.

    Where the memory is not known, `fits` is None: experts as the recipe, and the first way that leaves each GPU no more
    than UNKNOWN_GPU_WEIGHTS of weights.
    """
    ways = list(_candidates(arch, spec, gpus=gpus, nodes=nodes, precision=precision, experts=experts))
    if gpu_bytes is None:
        wanted = [way for way in ways if way.experts == ways[0].experts]
        light = [way for way in wanted if way.weights <= UNKNOWN_GPU_WEIGHTS]
        return _estimated((light or wanted[-1:])[0], fits=None)
    fitting = [way for way in ways if way.total <= gpu_bytes]
    return _estimated((fitting or ways[-1:])[0], fits=bool(fitting))


def _candidates(
    arch: Architecture, spec: RunSpec, *, gpus: int, nodes: int, precision: Precision | None, experts: bool | None
) -> Iterator[Estimate]:
    """Every way that the spec leaves open, in the order of preference."""
    for with_experts in experts_to_try(arch, spec) if experts is None else (experts,):
        for sharding, replicas in _sharding_options(spec, gpus=gpus, nodes=nodes):
            for every in _recompute_to_try(spec):
                yield estimate(
                    arch,
                    spec,
                    gpus=gpus,
                    nodes=nodes,
                    sharding=sharding,
                    replicas=replicas,
                    experts=with_experts,
                    recompute_every=every,
                    precision=precision,
                )


def _estimated(chosen: Estimate, *, fits: bool | None) -> EstimatedPlacement:
    return EstimatedPlacement(
        sharded=chosen.sharding == "fsdp",
        experts=chosen.experts,
        replicas=chosen.replicas,
        fits=fits,
        estimate=chosen,
    )


def experts_to_try(arch: Architecture, spec: RunSpec) -> tuple[bool, ...]:
    """Whether routed experts get adapters, as the spec leaves it: one answer, or with them rather than without."""
    wanted = wants_experts(arch, spec.lora)
    if not wanted or spec.lora.experts is True:
        return (wanted,)
    try:
        adapter_parameters(arch, spec.lora, experts=False)
    except ConfigError:
        # nothing but experts is asked for
        return (True,)
    return (True, False)


def _sharding_options(spec: RunSpec, *, gpus: int, nodes: int) -> tuple[tuple[Sharding, int], ...]:
    """(sharding, replicas): the less goes over a network, the earlier. Quantised weights cannot be sharded."""
    asked = spec.train.sharding
    is_quantized = spec.model.quantize is not None or spec.train.base_compute is not None
    if gpus * nodes == 1 or asked == "ddp" or is_quantized:
        return (("ddp", 1),)
    sharded: tuple[tuple[Sharding, int], ...] = (("fsdp", nodes), ("fsdp", 1))
    if nodes == 1 or gpus == 1:
        sharded = (("fsdp", 1),)
    return sharded if asked == "fsdp" else (("ddp", 1), *sharded)


def _recompute_to_try(spec: RunSpec) -> tuple[int, ...]:
    asked = spec.train.gradient_checkpointing
    return (0, *RECOMPUTE_EVERY) if asked == "auto" else (int(asked),)


@dataclass(frozen=True, kw_only=True, slots=True)
class MinimumGpus:
    """The fewest GPUs of a node, and nodes, on which a run fits, and how it is spread over them."""

    gpus: int
    nodes: int
    placement: EstimatedPlacement


def min_gpus(arch: Architecture, spec: RunSpec, *, gpu_bytes: int) -> MinimumGpus | None:
    """The fewest of GPU_COUNTS, of GPUs of that memory, on which a run fits; None when it fits on none."""
    for gpus, nodes in GPU_COUNTS:
        found = choose(arch, spec, gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes)
        if found.fits:
            return MinimumGpus(gpus=gpus, nodes=nodes, placement=found)
    return None


def most_tokens(arch: Architecture, spec: RunSpec, chosen: Estimate, *, gpus: int, nodes: int, gpu_bytes: int) -> int:
    """Tokens of the largest micro-batch that still fits the way `chosen` is spread, at least one longest row.

    Never more than GPU_TOKENS, nor than a step has for each GPU. What grows with the tokens grows evenly. Where the
    spec says how many, as many.
    """
    if spec.train.tokens_per_micro_batch is not None:
        return chosen.tokens
    twice = estimate(
        arch,
        spec,
        gpus=gpus,
        nodes=nodes,
        sharding=chosen.sharding,
        replicas=chosen.replicas,
        experts=chosen.experts,
        recompute_every=chosen.recompute_every,
        precision=chosen.precision,
        tokens=2 * chosen.tokens,
    )
    token_bytes = max(1, (twice.total - chosen.total) // chosen.tokens)
    rows = spec.train.batch_size * spec.train.gradient_accumulation
    room = chosen.tokens + (gpu_bytes - chosen.total) // token_bytes
    return max(chosen.tokens, min(GPU_TOKENS, rows * spec.data.max_length, room))


def usual_tokens(arch: Architecture, spec: RunSpec, chosen: Estimate, *, gpus: int, nodes: int, gpu_bytes: int) -> int:
    """Tokens of the micro-batches that training makes of a long step, which are fewer than would just fit.

    What autograd saves of them takes ACTIVATION_SHARE of the memory that is free before a step, as training measures.
    """
    most = most_tokens(arch, spec, chosen, gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes)
    if spec.train.tokens_per_micro_batch is not None:
        return most
    gathered = chosen.gathered_layers + chosen.gathered_embedding_and_head
    free = gpu_bytes - chosen.weights - gathered - chosen.adapter - chosen.workspace
    affordable = int(ACTIVATION_SHARE * free * chosen.tokens / chosen.activations)
    return max(chosen.tokens, min(most, affordable))
