"""How much memory a run takes on each GPU, before anything is downloaded.

Standard library only. What autograd saves is added up tensor by tensor from the architecture, for the code in `train`
as it is: a test counts the bytes of the tensors that are really allocated, and holds the two side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models import activations
from lorajob_runtime.models.gpu_sizes import GIBIBYTE
from lorajob_runtime.models.lora_weights import adapter_parameters, wants_experts
from lorajob_runtime.models.shapes import Architecture

Sharding = Literal["ddp", "fsdp"]
Precision = Literal["bf16", "fp32"]

WEIGHT_BYTES: dict[Precision, int] = {"bf16": 2, "fp32": 4}

NF4_BYTES = 0.5 + 4 / 64
"""Bytes of a weight in bitsandbytes' nf4: four bits, and one fp32 scale for every block of 64."""

ADAPTER_BYTES, GRADIENT_BYTES, OPTIMIZER_BYTES = 4, 4, 8
"""Bytes of a trained number: itself, its gradient, and AdamW's two moments, all fp32 and whole on every GPU."""

CHECKPOINT_BYTES = ADAPTER_BYTES + OPTIMIZER_BYTES
"""Bytes of a trained number in a checkpoint, and in the host memory of the one process that copies it there first."""

GATHERED_LAYERS = 3
"""Sharded layers whose weights a GPU has room taken for at a time.

The one at work; the one being gathered for after it; and what it is gathered through, which FSDP2 keeps in the pool of
a stream of its own until the next layer's is copied out.
"""

RECOMPUTE_EVERY = (8, 4, 3, 2, 1)
"""One layer in so many may compute its activations again: tried in turn, since the fewer do, the faster it is."""

ACTIVATION_SHARE = 0.6
"""Share of the free memory that kept activations may take; the rest is for the loss, workspaces and fragmentation."""

WORKSPACE_BYTES = 768 * 2**20
"""The CUDA context and its kernels, and the workspace of cuBLAS."""

COMMUNICATION_BYTES = GIBIBYTE
"""Buffers of NCCL, where GPUs work together."""

RESERVE = 0.1
"""Share of what comes and goes that the allocator's rounding and holes take beside it."""

PROCESS_BYTES = 3 * GIBIBYTE
"""Host memory of one training process: interpreter, torch with CUDA's libraries, the dataset and batches in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bytes on each GPU while it trains micro-batches of `tokens` tokens, by what takes them."""

    sharding: Sharding
    replicas: int
    """1: the shards of all GPUs are one model; else that many sets of GPUs hold one each. 1 under ddp."""
    experts: bool
    recompute_every: int
    """1: all layers compute their activations again, 2: every second one…; 0: none, they are saved."""
    precision: Precision
    tokens: int
    trained_parameters: int

    weights: int
    """The frozen weights, or this GPU's shard of them."""
    gathered_layers: int
    gathered_embedding_and_head: int
    """Embedding and head, gathered from a step's first layer to its last."""
    adapter: int
    """The adapter with its gradients and the optimizer's state."""
    activations: int
    """What autograd saves for the backward pass."""
    transient: int
    """The most that comes and goes beside it: logits for the loss, or gradients inside a layer."""
    workspace: int
    reserve: int
    host: int
    """Host memory of one process in bytes, of the one that writes checkpoints."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether any layer computes its activations again."""
        return self.recompute_every > 0

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
    "gathered_embedding_and_head",
    "adapter",
    "activations",
    "transient",
    "workspace",
    "reserve",
)


_WITHIN_A_STEP = ("gathered_layers", "gathered_embedding_and_head", "activations", "transient")
"""Parts that come and go within a step."""


def estimate(
    arch: Architecture,
    spec: RunSpec,
    *,
    gpus: int,
    nodes: int = 1,
    sharding: Sharding = "ddp",
    replicas: int = 1,
    experts: bool | None = None,
    recompute_every: int = 0,
    precision: Precision | None = None,
    tokens: int | None = None,
) -> Estimate:
    """What one of `gpus` GPUs on each of `nodes` nodes has to hold.

    `experts` None: as the recipe. `precision` None: the spec's, auto standing for bf16. `tokens` of a micro-batch,
    None: what the spec asks for, but at least one row of the longest allowed, which training cannot do without.
    """
    precision = precision or ("fp32" if spec.train.precision == "fp32" else "bf16")
    experts = wants_experts(arch, spec.lora) if experts is None else experts
    tokens = tokens or micro_batch_tokens(spec)
    shards = gpus * nodes // max(1, replicas) if sharding == "fsdp" else 1
    size = WEIGHT_BYTES[precision]
    trained = adapter_parameters(arch, spec.lora, experts=experts)
    saved = activations.of(arch, spec.lora, experts=experts, element_bytes=size)
    loss = activations.loss_bytes(arch, tokens, element_bytes=size)
    most_saved, transient = saved.peak(tokens, loss=loss, recompute_every=recompute_every)
    if spec.train.base_compute is not None:
        transient += _fp8_rows(arch) * tokens
    parts = {
        **_weights(arch, spec, precision, shards),
        "adapter": trained * (ADAPTER_BYTES + GRADIENT_BYTES + OPTIMIZER_BYTES),
        "activations": most_saved,
        "transient": transient,
        "workspace": WORKSPACE_BYTES + (COMMUNICATION_BYTES if gpus * nodes > 1 else 0),
    }
    return Estimate(
        sharding=sharding,
        replicas=replicas,
        experts=experts,
        recompute_every=recompute_every,
        precision=precision,
        tokens=tokens,
        trained_parameters=trained,
        reserve=int(RESERVE * sum(parts[name] for name in _WITHIN_A_STEP)),
        host=host_bytes(arch) + trained * CHECKPOINT_BYTES,
        **parts,
    )


def _fp8_rows(arch: Architecture) -> int:
    """Bytes of a token's widest row, scaled and then rounded. Both copies of a weight take what it takes in bf16."""
    return 3 * max(max(m.inputs, m.outputs) for layer in arch.layers for m in layer.matrices)


def _weights(arch: Architecture, spec: RunSpec, precision: Precision, shards: int) -> dict[str, int]:
    """Bytes of the frozen weights that a GPU holds, and of those it gathers, with the padding of their shards."""
    if shards == 1:
        return {"weights": weight_bytes(arch, spec, precision), "gathered_layers": 0, "gathered_embedding_and_head": 0}
    held = _parameters(arch, shards)
    return {name: count * WEIGHT_BYTES[precision] for name, count in held.items()}


@functools.lru_cache(maxsize=64)
def _parameters(arch: Architecture, shards: int) -> Mapping[str, int]:
    """The same in parameters."""
    return {
        "weights": arch.shard_size(shards),
        "gathered_layers": GATHERED_LAYERS * shards * max(layer.shard_size(shards) for layer in arch.layers),
        "gathered_embedding_and_head": shards * arch.embedding_and_head_shard_size(shards),
    }


def micro_batch_tokens(spec: RunSpec) -> int:
    """Tokens of the largest micro-batch that there has to be room for, as far as the spec says."""
    rows = spec.train.batch_size * spec.train.gradient_accumulation
    asked = min(spec.train.tokens_per_micro_batch or 0, rows * spec.data.max_length)
    return max(spec.data.max_length, asked)


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
