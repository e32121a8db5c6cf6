"""What autograd keeps between the forward and the backward pass, tensor by tensor, for the layers in `train`.

Standard library only. A frozen matrix without an adapter keeps nothing of its input. With one it keeps the input, the
dropout mask where there is dropout (both once for the matrices that read the same input), and the input times A.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from lorajob_runtime.architecture import Architecture, Layer, Matrix, adapted
from lorajob_runtime.spec import LoraSpec

FLOAT = 4
"""Bytes of an fp32 number: norms, routing and the loss are worked out in it whatever the weights are."""

LOSS_CHUNK_ELEMENTS = 2**25
"""Logits that are there at a time (rows x vocabulary)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMemory:
    """Of one layer: bytes kept for a token, bytes kept whatever the tokens, and bytes a token that come and go."""

    kept: int
    constant: int
    passing: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """Of a whole model. `stream` is a token's hidden state between layers, `tail` what is kept behind the last."""

    layers: tuple[LayerMemory, ...]
    stream: int
    tail: int

    def total(self, tokens: int, *, checkpointing: bool) -> int:
        """Most bytes at any time for a micro-batch of so many tokens.

        With checkpointing every layer keeps its input, and one layer at a time all that its backward pass needs.
        """
        passing = max(layer.passing for layer in self.layers) * tokens
        everything = [layer.kept * tokens + layer.constant for layer in self.layers]
        if checkpointing:
            return len(self.layers) * self.stream * tokens + max(everything) + passing + self.tail * tokens
        return sum(everything) + passing + self.tail * tokens


@functools.lru_cache(maxsize=16)
def of(architecture: Architecture, lora: LoraSpec, *, experts: bool, element_bytes: int) -> Activations:
    """What a model keeps whose frozen weights have `element_bytes` a number."""
    chosen: dict[int | None, set[str]] = {}
    for weight in adapted(architecture, lora, experts=experts):
        chosen.setdefault(weight.layer, set()).add(weight.matrix.path)
    layers = tuple(
        _layer(architecture, layer, frozenset(chosen.get(number, ())), lora, element_bytes)
        for number, layer in enumerate(architecture.layers)
    )
    hidden = architecture.hidden
    return Activations(layers=layers, stream=hidden * element_bytes, tail=hidden * (FLOAT + element_bytes) + FLOAT)


def loss_bytes(architecture: Architecture, tokens: int, *, element_bytes: int) -> int:
    """Most bytes of the loss: a chunk of logits as the head makes them, in fp32, and the hidden states' gradient."""
    rows = min(tokens, max(1, LOSS_CHUNK_ELEMENTS // architecture.vocabulary))
    logits = rows * architecture.vocabulary * (element_bytes + FLOAT)
    return logits + 2 * tokens * architecture.hidden * element_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Readers:
    """Matrices that read the same input of `width` numbers, `times` of them for every token."""

    width: int
    times: int
    matrices: tuple[Matrix, ...]


def _layer(
    architecture: Architecture, layer: Layer, chosen: frozenset[str], lora: LoraSpec, element: int
) -> LayerMemory:
    kept, constant = _norms(architecture) + _attention(architecture, element) + _mlps(layer, element), 0
    for readers in _readers(layer):
        adapters = [matrix for matrix in readers.matrices if matrix.path in chosen]
        if not adapters:
            continue
        is_masked = lora.dropout > 0 and adapters[0].group != "experts"
        kept += readers.times * element * (readers.width * (2 if is_masked else 1) + len(adapters) * lora.rank)
        constant += sum(_thin_copies(matrix, lora.rank, element) for matrix in adapters)
    return LayerMemory(kept=kept, constant=constant, passing=_passing(architecture, layer, element))


def _readers(layer: Layer) -> list[_Readers]:
    found: dict[tuple[str, int], list[Matrix]] = {}
    for matrix in layer.matrices:
        if matrix.group != "router":
            reads_inside = matrix.name in ("o_proj", "down_proj")
            found.setdefault((matrix.path.rsplit(".", 1)[0], int(reads_inside)), []).append(matrix)
    return [
        _Readers(width=those[0].inputs, times=_times(layer, those[0]), matrices=tuple(those))
        for those in found.values()
    ]


def _times(layer: Layer, matrix: Matrix) -> int:
    """How many copies of a matrix a token goes through."""
    return layer.chosen if matrix.group == "experts" else 1


def _thin_copies(matrix: Matrix, rank: int, element: int) -> int:
    """Bytes of B scaled, and of A where it is cast, as they are kept for the backward pass."""
    cast = 0 if element == FLOAT else matrix.inputs
    return matrix.copies * rank * element * (matrix.outputs + cast)


def _norms(architecture: Architecture) -> int:
    """The two norms of a layer, each keeping its input in fp32 and one number a token."""
    return 2 * (architecture.hidden * FLOAT + FLOAT)


def _attention(architecture: Architecture, element: int) -> int:
    """Queries, keys, values, the output and its log-sum-exp; where heads are normed also what went into the norms."""
    queries, keys = architecture.heads * architecture.head_dim, architecture.key_heads * architecture.head_dim
    kept = 2 * (queries + keys) * element + architecture.heads * FLOAT
    if architecture.head_norms != "none":
        kept += (queries + keys + architecture.heads + architecture.key_heads) * FLOAT
    return kept


def _mlps(layer: Layer, element: int) -> int:
    """Gate, up and act(gate) of every MLP that a token goes through; of a routed one its output and weight too."""
    kept = 0
    for matrix in layer.matrices:
        if matrix.name == "down_proj":
            times = _times(layer, matrix)
            kept += 3 * times * matrix.inputs * element
            if matrix.group == "experts":
                kept += times * (matrix.outputs * element + FLOAT)
    return kept


def _passing(architecture: Architecture, layer: Layer, element: int) -> int:
    """Gradients inside the widest MLP, and of the stream."""
    widest = max(_times(layer, matrix) * max(matrix.inputs, matrix.outputs) for matrix in layer.matrices)
    return 3 * widest * element + 2 * architecture.hidden * element
