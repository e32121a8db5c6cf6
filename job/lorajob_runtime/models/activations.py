"""What autograd saves between the forward and the backward pass, tensor by tensor, for the layers in `train`.

Standard library only. A frozen matrix without an adapter saves nothing of its input. With one it saves the input, where
there is dropout with what is dropped 0 (once for the matrices that read the same input), and the input times A. A bit
for each number says what is dropped; a GPU does without.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models.lora_weights import adapted
from lorajob_runtime.models.shapes import Architecture, Layer, Matrix

FLOAT = 4
"""Bytes of an fp32 number: norms, routing and the loss are computed in it, also where the weights are not."""

LOSS_CHUNK_ELEMENTS = 2**25
"""Logits that the loss is worked out from at a time (rows x vocabulary): 128 MiB in fp32, or a GPU's fewest rows."""

_LOSS_ROWS_ON_GPU, _ROWS_OF_A_TILE = 512, 128
"""Fewer rows leave the head's product waiting for the head's weights; others than whole tiles are padded to them."""


INDEX = 8
"""Bytes of a row's or an expert's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes:
    """A number of bytes for every token, and one that does not depend on the tokens."""

    token: int = 0
    constant: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(token=self.token + other.token, constant=self.constant + other.constant)

    def at(self, tokens: int) -> int:
        return self.token * tokens + self.constant


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMemory:
    """Of one layer: what is saved for its backward pass, and what comes and goes beside that."""

    saved: Bytes
    transient: Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """Of a whole model. `stream` is a token's hidden state between layers, `tail` what is saved behind the last.

    `copies` are those of the adapters of linear layers in the type that they are multiplied in.
    """

    layers: tuple[LayerMemory, ...]
    stream: int
    tail: int
    copies: int

    def peak(self, tokens: int, *, loss: int, recompute_every: int = 0) -> tuple[int, int]:
        """(saved, transient) bytes when a micro-batch of so many tokens takes most: what autograd has saved by then,
        and what comes and goes beside it, in the backward pass of a layer or for the loss, which takes `loss` bytes.

        Every `recompute_every`-th layer (0: none), the first one among them, saves its input, and in its backward pass
        what that needs; the others save that from the start. Backward passes let go of either.
        """
        saved = [layer.saved.at(tokens) for layer in self.layers]
        is_recomputed = [recompute_every > 0 and index % recompute_every == 0 for index in range(len(self.layers))]
        inputs = self.stream * tokens
        kept = sum(inputs if again else size for size, again in zip(saved, is_recomputed, strict=True))
        moments = [(kept, loss)]
        for layer, size, again in reversed(list(zip(self.layers, saved, is_recomputed, strict=True))):
            moments.append((kept + size if again else kept, layer.transient.at(tokens)))
            kept -= inputs if again else size
        most, beside = max(moments, key=sum)
        return self.tail * tokens + self.copies + most, beside


@functools.lru_cache(maxsize=16)
def of(architecture: Architecture, lora: LoraSpec, *, experts: bool, element_bytes: int) -> Activations:
    """What a model saves that computes with `element_bytes` a number."""
    chosen: dict[int | None, set[str]] = {}
    copies = 0
    for weight in adapted(architecture, lora, experts=experts):
        chosen.setdefault(weight.layer, set()).add(weight.matrix.path)
        if element_bytes != FLOAT and weight.matrix.group != "experts":
            copies += weight.matrix.adapter_parameters(lora.rank) * element_bytes
    layers = tuple(
        _layer(architecture, layer, frozenset(chosen.get(number, ())), lora, element_bytes)
        for number, layer in enumerate(architecture.layers)
    )
    # the first norm saves nothing, since nothing before it is trained: the last one's input stands in for that
    hidden = architecture.hidden * element_bytes
    return Activations(layers=layers, stream=hidden, tail=hidden, copies=copies)


def loss_rows(vocabulary: int, *, on_gpu: bool) -> int:
    """Rows whose logits are there at a time."""
    rows = max(1, LOSS_CHUNK_ELEMENTS // vocabulary)
    if on_gpu:
        return max(_LOSS_ROWS_ON_GPU, rows // _ROWS_OF_A_TILE * _ROWS_OF_A_TILE)
    return rows


def loss_bytes(architecture: Architecture, tokens: int, *, element_bytes: int) -> int:
    """Most bytes of the loss on a GPU, all tokens having one: logits, the hidden states and their gradient.

    A chunk of logits is there twice in fp32, with their logarithms of probabilities.
    """
    rows = min(tokens, loss_rows(architecture.vocabulary, on_gpu=True))
    return 2 * rows * architecture.vocabulary * FLOAT + 2 * tokens * architecture.hidden * element_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Readers:
    """Linear layers that read the same input of `width` numbers."""

    width: int
    matrices: tuple[Matrix, ...]


def _layer(
    architecture: Architecture, layer: Layer, chosen: frozenset[str], lora: LoraSpec, element: int
) -> LayerMemory:
    saved = Bytes(token=_norms(architecture, element) + _attention(architecture, element) + _mlps(layer, element))
    for readers in _readers(layer):
        adapters = [matrix for matrix in readers.matrices if matrix.path in chosen]
        if adapters:
            bits = readers.width // 8 if lora.dropout > 0 else 0
            saved += Bytes(token=element * (readers.width + len(adapters) * lora.rank) + bits)
    if layer.experts_per_token:
        saved += _routing(layer, element) + _routed(layer, chosen, lora.rank, element)
    return LayerMemory(saved=saved, transient=_transient(architecture, layer, chosen, lora.rank, element))


def _readers(layer: Layer) -> list[_Readers]:
    found: dict[tuple[str, bool], list[Matrix]] = {}
    for matrix in layer.matrices:
        if matrix.group not in ("router", "experts"):
            reads_inside = matrix.name in ("o_proj", "down_proj")
            found.setdefault((matrix.path.rsplit(".", 1)[0], reads_inside), []).append(matrix)
    return [_Readers(width=those[0].inputs, matrices=tuple(those)) for those in found.values()]


def _norms(architecture: Architecture, element: int) -> int:
    """The two norms of a layer, each saving its input and one number a token."""
    return 2 * (architecture.hidden * element + FLOAT)


def _attention(architecture: Architecture, element: int) -> int:
    """Queries, keys, values, the output and its log-sum-exp; where heads are normed also what went into the norms."""
    queries, keys = architecture.heads * architecture.head_dim, architecture.key_heads * architecture.head_dim
    saved = 2 * (queries + keys) * element + architecture.heads * FLOAT
    if architecture.head_norms != "none":
        saved += (queries + keys) * element + (architecture.heads + architecture.key_heads) * FLOAT
    return saved


def _mlps(layer: Layer, element: int) -> int:
    """Gate and up of every MLP that all tokens go through."""
    return sum(
        2 * matrix.inputs * element
        for matrix in layer.matrices
        if matrix.name == "down_proj" and matrix.group != "experts"
    )


def _routing(layer: Layer, element: int) -> Bytes:
    """Every expert's score and whether it may be chosen; the chosen ones' numbers, places and weights."""
    (router,) = layer.of("router")
    cast = 0 if element == FLOAT else router.parameters * FLOAT
    return Bytes(token=router.outputs * (FLOAT + 1) + layer.experts_per_token * (3 * INDEX + 2 * FLOAT), constant=cast)


def _routed(layer: Layer, chosen: frozenset[str], rank: int, element: int) -> Bytes:
    """Of every row of the routed experts: gate and up, and what the adapters' A made of it.

    Without an adapter it is transformers' own code, which saves act(gate) and the outputs beside gate and up.
    """
    inputs, down = layer.of("experts")
    adapters = sum(matrix.path in chosen for matrix in (inputs, down))
    row = inputs.outputs + adapters * rank
    if not adapters:
        row += down.inputs + down.outputs
    return Bytes(token=layer.experts_per_token * row * element)


def _transient(architecture: Architecture, layer: Layer, chosen: frozenset[str], rank: int, element: int) -> Bytes:
    """What the backward pass of the widest MLP holds at a time.

    Of gate and up the gradients of both and the stream's, since what the down projection saved, which is as wide, is
    let go when its own gradient is there; or of a norm three times its input in fp32 and the gradients before and
    behind it. Of routed experts the rows, their gradients before and after they are put into the tokens' order, those
    of gate and up, the gradients of the adapters, and the adapters as they are multiplied.
    """
    widest = max((matrix.inputs for matrix in layer.matrices if matrix.group in ("dense", "shared")), default=0)
    linear = (2 * max(widest, architecture.hidden) + architecture.hidden) * element
    transient = Bytes(token=max(linear, architecture.hidden * (3 * FLOAT + 2 * element)))
    if not layer.experts_per_token:
        return transient
    inputs, down = layer.of("experts")
    rows = layer.experts_per_token * (3 * inputs.inputs + inputs.outputs + down.inputs) * element
    adapters = sum(m.adapter_parameters(rank) for m in (inputs, down) if m.path in chosen)
    return Bytes(token=max(transient.token, rows), constant=adapters * (FLOAT + element))
