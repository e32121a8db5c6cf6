"""What a decoder layer's kernels beside the matrix products move, for the code in `train` as it is.

Standard library only. The numbers are counted by `bench/kernel_counts.py --coefficients`, and a test counts them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.models.shapes import Architecture, HeadNorms, Layer

Experts = Literal["none", "bare", "adapted"]
"""Routed experts of a layer: there are none, they have no adapter, they have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassCost:
    """Of a forward or a backward pass of one layer.

    Bytes are those of a token and of one number of the layer's `width`: of kernels other than products, and of what
    the adapters' narrow products read and write. `adapter_bytes` come once for every trained number, whatever the
    tokens. `dispatches` are the calls that the processor makes.
    """

    kernels: int
    dispatches: int
    other: float
    thin: float
    adapter_bytes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """Of a layer whose queries and keys are normed so, and whose routed experts are such."""

    head_norms: HeadNorms
    experts: Experts
    forward: PassCost
    backward: PassCost


def _row(head_norms: HeadNorms, experts: Experts, *numbers: tuple[int, int, float, float, float]) -> LayerCost:
    forward, backward = (
        PassCost(kernels=kernels, dispatches=dispatches, other=other, thin=thin, adapter_bytes=adapter)
        for kernels, dispatches, other, thin, adapter in numbers
    )
    return LayerCost(head_norms=head_norms, experts=experts, forward=forward, backward=backward)


LAYERS = (
    _row("none", "none", (77, 152, 8.22, 3.1, 14.6), (104, 187, 12.51, 4.0, 26.4)),
    _row("head", "none", (79, 154, 8.8, 3.03, 14.2), (106, 189, 13.31, 4.01, 26.1)),
    _row("none", "bare", (117, 219, 8.91, 1.04, 19.8), (139, 245, 18.92, 1.46, 25.4)),
    _row("whole", "bare", (75, 143, 8.62, 0.65, 13.2), (96, 168, 19.32, 0.92, 25.5)),
    _row("head", "bare", (105, 193, 7.74, 0.8, 15.9), (140, 236, 17.39, 1.09, 28.2)),
    _row("none", "adapted", (131, 240, 9.16, 2.26, 14.9), (188, 321, 14.91, 3.91, 44.6)),
    _row("whole", "adapted", (89, 164, 9.68, 2.14, 14.8), (145, 244, 17.15, 3.9, 45.5)),
    _row("head", "adapted", (119, 214, 9.62, 2.26, 15.1), (189, 312, 18.29, 4.01, 45.4)),
)
"""(kernels, dispatches, bytes of other kernels, of narrow products, of a trained number), forward and backward."""

HEAD_BYTES = 39.1
"""What the loss moves for every logit, beside the products: counted for Qwen3-8B."""


def of_layer(architecture: Architecture, layer: Layer, *, adapted_experts: bool) -> LayerCost:
    """The row of a layer, or of the kind that is nearest to it."""
    experts: Experts = "none" if not layer.experts_per_token else "adapted" if adapted_experts else "bare"
    alike = [row for row in LAYERS if row.experts == experts]
    return next((row for row in alike if row.head_norms == architecture.head_norms), alike[-1])


def width(layer: Layer) -> int:
    """Numbers that go into the layer's matrices and come out of them, for one token."""
    return sum(
        (matrix.inputs + matrix.outputs) * (layer.experts_per_token if matrix.copies > 1 else 1)
        for matrix in layer.matrices
    )
