"""How much memory a run takes on each GPU, before anything is downloaded; and from that, how it is spread over them.

Standard library only. What autograd keeps is added up tensor by tensor from the architecture, for the code in `train`
as it is: a test counts the bytes of the tensors that are really allocated, and holds the two side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models import activations
from lorajob_runtime.models.lora_weights import adapter_parameters, wants_experts
from lorajob_runtime.models.shapes import Architecture

GIBIBYTE = 2**30

Sharding = Literal["ddp", "fsdp"]
Precision = Literal["bf16", "fp32"]

GPU_TOKENS = 16_384
"""Tokens of a micro-batch on a GPU: enough to fill it."""

WEIGHT_BYTES: dict[Precision, int] = {"bf16": 2, "fp32": 4}

NF4_BYTES = 0.5 + 4 / 64
"""Bytes of a weight in bitsandbytes' nf4: four bits, and one fp32 scale for every block of 64."""

ADAPTER_BYTES, GRADIENT_BYTES, OPTIMIZER_BYTES = 4, 4, 8
"""Bytes of a trained number: itself, its gradient, and AdamW's two moments, all fp32 and whole on every GPU."""

GATHERED_LAYERS = 3
"""Sharded layers whose weights a GPU has room taken for at a time.

The one at work; the one being gathered for after it; and what it is gathered through, which FSDP2 keeps in the pool of
a stream of its own until the next layer's is copied out.
"""

WORKSPACE_BYTES = 768 * 2**20
"""The CUDA context and its kernels, and the workspace of cuBLAS."""

COMMUNICATION_BYTES = GIBIBYTE
"""Buffers of NCCL, where GPUs work together."""

RESERVE = 0.1
"""Share of what comes and goes that the allocator's rounding and holes take beside it."""

PROCESS_BYTES = 3 * GIBIBYTE
"""Host memory of one training process: interpreter, torch with CUDA's libraries, the dataset and batches in flight."""

UNKNOWN_GPU_WEIGHTS = 40 * 10**9
"""Weights up to this are taken to fit on one GPU whose memory nobody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bytes on each GPU while it trains micro-batches of `tokens` tokens, by what takes them."""

    sharding: Sharding
    replicas: int
    """1: the parts make up one model over all GPUs; else one model on as many sets of GPUs. 1 under ddp."""
    experts: bool
    gradient_checkpointing: bool
    precision: Precision
    tokens: int
    trained_parameters: int

    weights: int
    """The frozen weights, or this GPU's part of them."""
    gathered_layers: int
    gathered_ends: int
    """Embedding and head, gathered from a step's first layer to its last."""
    adapter: int
    """The adapter with its gradients and the optimizer's state."""
    activations: int
    """What autograd keeps for the backward pass."""
    passing: int
    """The most that comes and goes beside it: logits for the loss, or gradients inside a layer."""
    workspace: int
    reserve: int
    host: int
    """Host memory of one process, in bytes."""

    @property
    def total(self) -> int:
        """Bytes of GPU memory."""
        return sum(size for _, size in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        """Each part of the total, in the order in which it comes into being."""
        for name in PARTS:
            yield name, getattr(self, name)


PARTS = (
    "weights",
    "gathered_layers",
    "gathered_ends",
    "adapter",
    "activations",
    "passing",
    "workspace",
    "reserve",
)


MOVING = ("gathered_layers", "gathered_ends", "activations", "passing")
"""Parts that come and go within a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How a run is spread over its GPUs. `fits` is None where the GPUs' memory is not known."""

    sharding: Sharding
    experts: bool
    replicas: int
    """1: sharded over all GPUs; as many as nodes: within each node, and replicated over them. 1 under ddp."""
    fits: bool | None
    estimate: Estimate


def estimate(
    arch: Architecture,
    spec: RunSpec,
    *,
    gpus: int,
    nodes: int = 1,
    sharding: Sharding = "ddp",
    replicas: int = 1,
    experts: bool | None = None,
    gradient_checkpointing: bool = False,
    precision: Precision | None = None,
    tokens: int | None = None,
) -> Estimate:
    """What one of `gpus` GPUs on each of `nodes` nodes has to hold.

    `experts` None: as the recipe. `precision` None: the spec's, auto standing for bf16. `tokens` of a micro-batch,
    None: one row of the longest allowed, the least that training can do with.
    """
    precision = precision or ("fp32" if spec.train.precision == "fp32" else "bf16")
    experts = wants_experts(arch, spec.lora) if experts is None else experts
    tokens = tokens or spec.data.max_length
    shards = gpus * nodes // max(1, replicas) if sharding == "fsdp" else 1
    size = WEIGHT_BYTES[precision]
    trained = adapter_parameters(arch, spec.lora, experts=experts)
    quantized = spec.model.quantize is not None
    kept = activations.of(arch, spec.lora, experts=experts, element_bytes=size, quantized=quantized)
    loss = activations.loss_bytes(arch, tokens, element_bytes=size)
    parts = {
        **_weights(arch, spec, precision, shards),
        "adapter": trained * (ADAPTER_BYTES + GRADIENT_BYTES + OPTIMIZER_BYTES),
        "activations": kept.kept(tokens, checkpointing=gradient_checkpointing),
        "passing": kept.passing(tokens, loss=loss, checkpointing=gradient_checkpointing),
        "workspace": WORKSPACE_BYTES + (COMMUNICATION_BYTES if gpus * nodes > 1 else 0),
    }
    return Estimate(
        sharding=sharding,
        replicas=replicas,
        experts=experts,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        tokens=tokens,
        trained_parameters=trained,
        reserve=int(RESERVE * sum(parts[name] for name in MOVING)),
        host=host_bytes(arch),
        **parts,
    )


def _weights(arch: Architecture, spec: RunSpec, precision: Precision, shards: int) -> dict[str, int]:
    """Bytes of the frozen weights that a GPU holds, and of those it gathers: parts that hold air bring it along."""
    if shards == 1:
        return {"weights": weight_bytes(arch, spec, precision), "gathered_layers": 0, "gathered_ends": 0}
    part = _part(arch, shards)
    return {name: numbers * WEIGHT_BYTES[precision] for name, numbers in part.items()}


@functools.lru_cache(maxsize=64)
def _part(arch: Architecture, shards: int) -> Mapping[str, int]:
    """The same in numbers."""
    return {
        "weights": arch.shard_size(shards),
        "gathered_layers": GATHERED_LAYERS * shards * max(layer.shard_size(shards) for layer in arch.layers),
        "gathered_ends": shards * arch.embedding_and_head_shard_size(shards),
    }


def host_bytes(arch: Architecture) -> int:
    """Host memory of one process on a GPU: weights go there tensor by tensor, twice there while one is put together."""
    return PROCESS_BYTES + 2 * arch.largest_matrix * WEIGHT_BYTES["bf16"]


def weight_bytes(arch: Architecture, spec: RunSpec, precision: Precision = "bf16") -> int:
    """Bytes of all frozen weights as they are trained on; with nf4 those of the layers' matrices only are quantised."""
    size = WEIGHT_BYTES[precision]
    if spec.model.quantize is None:
        return arch.parameters * size
    matrices = sum(matrix.parameters for layer in arch.layers for matrix in layer.matrices)
    return int(matrices * NF4_BYTES) + (arch.parameters - matrices) * size


def choose(
    arch: Architecture,
    spec: RunSpec,
    *,
    gpus: int,
    nodes: int = 1,
    gpu_bytes: int | None,
    precision: Precision | None = None,
    experts: bool | None = None,
) -> Choice:
    """How to spread a run over GPUs of `gpu_bytes` each: the first of these ways that fits, else the most frugal.

    With the experts that the recipe wants before without them; for each of the two the whole model on every GPU, then
    sharded within each node, then sharded over all GPUs; for each of these with activations kept, then made again. What
    the spec says outright (lora.experts, train.sharding, train.gradientCheckpointing) is not varied. One GPU has
    nothing to shard over. `experts`: what was decided before, where it was.

    Where the memory is not known, `fits` is None: experts as the recipe, and the first way that leaves each GPU no more
    than UNKNOWN_GPU_WEIGHTS of weights.
    """
    ways = list(_ways(arch, spec, gpus=gpus, nodes=nodes, precision=precision, experts=experts))
    if gpu_bytes is None:
        wanted = [way for way in ways if way.experts == ways[0].experts]
        light = [way for way in wanted if way.weights <= UNKNOWN_GPU_WEIGHTS]
        return _choice((light or wanted[-1:])[0], fits=None)
    fitting = [way for way in ways if way.total <= gpu_bytes]
    return _choice((fitting or ways[-1:])[0], fits=bool(fitting))


def _ways(
    arch: Architecture, spec: RunSpec, *, gpus: int, nodes: int, precision: Precision | None, experts: bool | None
) -> Iterator[Estimate]:
    """Every way that the spec leaves open, in the order of preference."""
    for with_experts in experts_to_try(arch, spec) if experts is None else (experts,):
        for sharding, replicas in _spreads(spec, gpus=gpus, nodes=nodes):
            for checkpointing in _checkpointing_to_try(spec):
                yield estimate(
                    arch,
                    spec,
                    gpus=gpus,
                    nodes=nodes,
                    sharding=sharding,
                    replicas=replicas,
                    experts=with_experts,
                    gradient_checkpointing=checkpointing,
                    precision=precision,
                )


def _choice(chosen: Estimate, *, fits: bool | None) -> Choice:
    return Choice(
        sharding=chosen.sharding, experts=chosen.experts, replicas=chosen.replicas, fits=fits, estimate=chosen
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


def _spreads(spec: RunSpec, *, gpus: int, nodes: int) -> tuple[tuple[Sharding, int], ...]:
    """(sharding, replicas): the less goes over a network, the earlier. Quantised weights cannot be sharded."""
    asked = spec.train.sharding
    if gpus * nodes == 1 or asked == "ddp" or spec.model.quantize is not None:
        return (("ddp", 1),)
    sharded: tuple[tuple[Sharding, int], ...] = (("fsdp", nodes), ("fsdp", 1))
    if nodes == 1 or gpus == 1:
        sharded = (("fsdp", 1),)
    return sharded if asked == "fsdp" else (("ddp", 1), *sharded)


def _checkpointing_to_try(spec: RunSpec) -> tuple[bool, ...]:
    asked = spec.train.gradient_checkpointing
    return (False, True) if asked == "auto" else (asked,)


GPU_COUNTS = tuple([(gpus, 1) for gpus in range(1, 9)] + [(8, nodes) for nodes in range(2, 9)])
"""(GPUs of a node, nodes): any number on one node of 8, then whole nodes, the fewest first."""

GPU_SIZES = {24: 22.0, 40: 39.3, 48: 44.3, 80: 79.1, 96: 94.9, 141: 139.7, 192: 178.3}
"""What a GPU's memory is called in GB -> GiB that torch finds on the one of that name that has the least of it.

L4, A100-40, L40S, A100-80, H20, H200 and B200: error correction and what the driver keeps are taken off.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enough:
    """GPUs of a node and nodes on which a run fits, and how."""

    gpus: int
    nodes: int
    choice: Choice


def smallest(arch: Architecture, spec: RunSpec, *, gpu_bytes: int) -> Enough | None:
    """The fewest of GPU_COUNTS, of GPUs of that memory, on which a run fits; None when it fits on none."""
    for gpus, nodes in GPU_COUNTS:
        found = choose(arch, spec, gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes)
        if found.fits:
            return Enough(gpus=gpus, nodes=nodes, choice=found)
    return None


def most_tokens(arch: Architecture, spec: RunSpec, chosen: Estimate, *, gpus: int, nodes: int, gpu_bytes: int) -> int:
    """Tokens of the largest micro-batch that still fits the way `chosen` is spread, at least one longest row.

    Never more than GPU_TOKENS, nor than a step has for each GPU. What grows with the tokens grows evenly.
    """
    twice = estimate(
        arch,
        spec,
        gpus=gpus,
        nodes=nodes,
        sharding=chosen.sharding,
        replicas=chosen.replicas,
        experts=chosen.experts,
        gradient_checkpointing=chosen.gradient_checkpointing,
        precision=chosen.precision,
        tokens=2 * chosen.tokens,
    )
    token_bytes = max(1, (twice.total - chosen.total) // chosen.tokens)
    rows = spec.train.batch_size * spec.train.gradient_accumulation
    room = chosen.tokens + (gpu_bytes - chosen.total) // token_bytes
    return max(chosen.tokens, min(GPU_TOKENS, rows * spec.data.max_length, room))
