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
    _row("none", "none", (43, 145, 6.82, 2.87, 14.0), (49, 137, 8.06, 3.53, 6.0)),
    _row("head", "none", (45, 147, 7.16, 2.71, 14.0), (52, 140, 8.13, 3.36, 6.0)),
    _row("none", "bare", (83, 212, 8.18, 0.89, 20.6), (85, 196, 16.62, 1.16, 6.0)),
    _row("whole", "bare", (55, 136, 8.14, 0.55, 14.1), (64, 137, 17.81, 0.71, 6.1)),
    _row("head", "bare", (71, 186, 7.19, 0.68, 16.8), (86, 187, 15.68, 0.84, 8.8)),
    _row("none", "adapted", (95, 235, 8.43, 2.11, 10.6), (133, 278, 12.07, 3.6, 41.8)),
    _row("whole", "adapted", (67, 159, 9.2, 2.04, 10.3), (112, 219, 14.8, 3.68, 43.1)),
    _row("head", "adapted", (83, 209, 9.07, 2.13, 10.6), (134, 269, 15.55, 3.75, 42.3)),
)
"""(kernels, dispatches, bytes of other kernels, of narrow products, of a trained number), forward and backward."""

HEAD_BYTES = 41.2
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
