"""How long an optimizer step takes, by what takes it, for any number of GPUs. Arithmetic: it was never measured.

Standard library only. A part is operations divided by what a GPU does a second, or bytes by what it moves. How many
kernels there are and what they move is counted from training's code (`kernel_costs`); the shares that a GPU reaches of
its maker's figures are those of an H100, on which 8192 x 8192 products ran at 798 TFLOP/s, those as narrow as a
micro-batch at 600 to 650, and copies at 3.0 TB/s. All else is assumed, and said so where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models import kernel_costs
from lorajob_runtime.models.gpu_speeds import GpuSpeed, Network, node_bytes
from lorajob_runtime.models.kernel_costs import PassCost
from lorajob_runtime.models.lora_weights import adapted
from lorajob_runtime.models.memory_plan import GRADIENT_BYTES, NF4_BYTES, WEIGHT_BYTES, Estimate
from lorajob_runtime.models.shapes import Architecture, Layer, Matrix

PRODUCTS_REACHED = 0.63
"""Share of the maker's dense bf16 operations that the frozen weights' products reach: 625 of an H100's 989 TFLOP/s."""

FP32_SHARE = 1 / 16
"""What a GPU does of that in plain fp32, without TF32: 67 of 989 TFLOP/s on an H100, 19.5 of 312 on an A100."""

ATTENTION_REACHED = 0.3
"""The same for attention within documents, forward and backward together. Assumed."""

MEMORY_REACHED = 0.9
"""Share of the maker's memory bandwidth that kernels reach: a copy's 3.0 of an H100's 3.35 TB/s."""

LINK_REACHED = 0.8
"""Share of a link's bytes a second that NCCL reaches: 360 of 450 GB/s over NVLink. Assumed of other links."""

HIDDEN = 0.7
"""Share of the gathering of sharded weights that goes on beside the work, where there is as much work. Assumed."""

KERNEL_SECONDS, DISPATCH_SECONDS = 2e-6, 4.7e-6
"""Of every kernel what it takes beside its bytes; and what the processor needs to call it. Assumed."""

COLLECTIVE_SECONDS = 30e-6
"""What a collective operation takes beside its bytes. Assumed."""

INPUT_SECONDS = 1e-3
"""Of a micro-batch: rows put end to end, brought to the GPU, and what is waited for. Assumed."""

TARGET_SHARE = 1 / 3
"""Share of the tokens that have a loss, which alone go through the head: as in the recipes' datasets. Assumed."""

OPTIMIZER_BYTES = 44
"""Of a trained number in a step: AdamW reads four and writes three; norm, scaling and zeroing are four more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one step by what takes them, in which each GPU trains `tokens` in so many micro-batches."""

    tokens: int
    micro_batches: int
    products: float
    """With the frozen weights, and attention."""
    kernels: float
    """All others: norms, dropout, rotary embedding, activations, sums, and the adapters' narrow products."""
    launches: float
    """What starting kernels adds, which counts where micro-batches are small."""
    gathers: float
    """Of sharded weights: what is not hidden behind the work, and copying them to their places."""
    gradient_sum: float
    optimizer: float
    input: float

    @property
    def parts(self) -> dict[str, float]:
        names = ("products", "kernels", "launches", "gathers", "gradient_sum", "optimizer", "input")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def estimate(
    architecture: Architecture,
    spec: RunSpec,
    chosen: Estimate,
    gpu: GpuSpeed,
    *,
    gpus: int,
    nodes: int = 1,
    tokens: int,
    micro_batches: int = 1,
    row_tokens: float | None = None,
    network: Network = "infiniband",
) -> StepTime:
    """A step in which each of `gpus` GPUs on each of `nodes` nodes trains `tokens` tokens.

    `chosen` says how the run is spread, whether activations are recomputed, and what has adapters. `row_tokens` is a
    mean row, None: the longest allowed. `network` connects the nodes.
    """
    work = _Work(architecture, spec, chosen, gpu, row_tokens or spec.data.max_length)
    each = tokens / micro_batches
    passes = list(work.passes(each))
    products = sum(seconds for _, seconds, _ in passes) + work.head_products(each)
    kernels = sum(seconds for _, _, seconds in passes) + work.head_kernels(each)
    started = sum(cost.kernels for cost, _, _ in passes) * KERNEL_SECONDS
    called = sum(cost.dispatches for cost, _, _ in passes) * DISPATCH_SECONDS
    # the processor runs ahead of the GPU, unless calling takes longer than what is called
    launches = max(started, called - products - kernels)
    links = _links(gpu, gpus, nodes, network)
    gathers = _gathering(architecture, chosen, gpu, links, busy=products + kernels + launches)
    return StepTime(
        tokens=tokens,
        micro_batches=micro_batches,
        products=micro_batches * products,
        kernels=micro_batches * kernels,
        launches=micro_batches * launches,
        gathers=micro_batches * gathers,
        gradient_sum=_gradient_sum(chosen.trained_parameters, links),
        optimizer=chosen.trained_parameters * OPTIMIZER_BYTES / (gpu.memory * MEMORY_REACHED),
        input=micro_batches * INPUT_SECONDS,
    )


class _Work:
    """What one GPU does with a micro-batch."""

    def __init__(
        self, architecture: Architecture, spec: RunSpec, chosen: Estimate, gpu: GpuSpeed, row_tokens: float
    ) -> None:
        self._architecture, self._chosen, self._row_tokens = architecture, chosen, row_tokens
        self._quantized = spec.model.quantize is not None
        self._element = WEIGHT_BYTES[chosen.precision]
        scale = 1.0 if chosen.precision == "bf16" else FP32_SHARE
        self._operations = gpu.teraflops * 1e12 * PRODUCTS_REACHED * scale
        self._attention = gpu.teraflops * 1e12 * ATTENTION_REACHED * scale
        self._memory = gpu.memory * MEMORY_REACHED
        self._trained = [0] * len(architecture.layers)
        for weight in adapted(architecture, spec.lora, experts=chosen.experts):
            if weight.layer is not None:
                self._trained[weight.layer] += weight.matrix.adapter_parameters(spec.lora.rank)

    def passes(self, tokens: float) -> Iterator[tuple[PassCost, float, float]]:
        """(what is launched, seconds of products, of other kernels) of every pass through a layer.

        Of layers whose activations are recomputed there is one forward pass more.
        """
        every = self._chosen.recompute_every
        for number, (layer, trained) in enumerate(zip(self._architecture.layers, self._trained, strict=True)):
            cost = kernel_costs.of_layer(self._architecture, layer, adapted_experts=self._chosen.experts)
            frozen, attention = self._products(layer, tokens), self._attention_operations(tokens) / self._attention
            for _ in range(2 if every and number % every == 0 else 1):
                yield cost.forward, frozen + attention, self._other(layer, cost.forward, tokens, trained)
            # flash attention computes its scores again, which makes five products of two
            yield cost.backward, frozen + 2.5 * attention, self._other(layer, cost.backward, tokens, trained)

    def head_products(self, tokens: float) -> float:
        """Logits and the gradient of the hidden states."""
        return 4 * tokens * TARGET_SHARE * self._architecture.embedding / self._operations

    def head_kernels(self, tokens: float) -> float:
        return tokens * TARGET_SHARE * self._architecture.vocabulary * kernel_costs.HEAD_BYTES / self._memory

    def _products(self, layer: Layer, tokens: float) -> float:
        """Of all tokens with the frozen weights, or their gradients: as long as computing or reading them takes."""
        return sum(self._product(matrix, layer, tokens) for matrix in layer.matrices)

    def _product(self, matrix: Matrix, layer: Layer, tokens: float) -> float:
        rows, used = tokens, 1.0
        if matrix.copies > 1:
            rows = tokens * layer.experts_per_token
            used = min(matrix.copies, rows)
        numbers = matrix.inputs * matrix.outputs
        read = used * numbers * self._element / self._memory
        unpacked = used * numbers * (NF4_BYTES + self._element) / self._memory if self._quantized else 0.0
        return max(2 * rows * numbers / self._operations, read) + unpacked

    def _attention_operations(self, tokens: float) -> float:
        """Scores and their product with the values, of the half of each document that a token sees on average."""
        return 2 * tokens * self._row_tokens * self._architecture.heads * self._architecture.head_dim

    def _other(self, layer: Layer, cost: PassCost, tokens: float, trained: int) -> float:
        moved = tokens * kernel_costs.width(layer) * (cost.other + cost.thin) + trained * cost.adapter_bytes
        # counted in bf16
        return moved * self._element / WEIGHT_BYTES["bf16"] / self._memory


@dataclass(frozen=True, kw_only=True, slots=True)
class _Links:
    """How fast a GPU gets what others have: `inside` its node, and `outside` into all GPUs of a node together."""

    gpus: int
    nodes: int
    inside: float
    outside: float

    def seconds(self, size: int, *, shards: int, nodes: int) -> float:
        """Of every GPU's getting `size` bytes of which it has one of `shards` parts, from so many nodes: a ring."""
        if shards == 1:
            return 0.0
        within = size * (shards - 1) / shards / self.inside
        between = size * (nodes - 1) / nodes / self.outside
        return COLLECTIVE_SECONDS + max(within, between)


def _links(gpu: GpuSpeed, gpus: int, nodes: int, network: Network) -> _Links:
    outside = node_bytes(network, gpus) * LINK_REACHED
    return _Links(gpus=gpus, nodes=nodes, inside=gpu.link * LINK_REACHED, outside=outside)


def _gathering(architecture: Architecture, chosen: Estimate, gpu: GpuSpeed, links: _Links, busy: float) -> float:
    """Of a micro-batch: every layer for its forward pass and again for its backward pass, embedding and head once.

    What was gathered is copied to its place once more, which nothing hides.
    """
    if chosen.sharding != "fsdp":
        return 0.0
    shards = links.gpus * links.nodes // max(1, chosen.replicas)
    nodes = 1 if chosen.replicas > 1 else links.nodes
    element = WEIGHT_BYTES[chosen.precision]
    gathered = [2 * layer.parameters * element for layer in architecture.layers]
    gathered.append(architecture.embedding_and_head * element)
    waiting = sum(links.seconds(size, shards=shards, nodes=nodes) for size in gathered)
    copied = 2 * sum(gathered) / (gpu.memory * MEMORY_REACHED)
    return waiting - HIDDEN * min(waiting, busy) + copied


def _gradient_sum(trained: int, links: _Links) -> float:
    """Of a step: each GPU gets every sum in parts, then the whole: twice around the ring."""
    return 2 * links.seconds(trained * GRADIENT_BYTES, shards=links.gpus * links.nodes, nodes=links.nodes)
