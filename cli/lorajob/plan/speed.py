"""How fast a run would train, from its GPUs, its model and its dataset's size. Pure.

What takes how long is `lorajob_runtime.models.step_time`'s to say. It is worked out, never measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lorajob.plan.gpus import Gpu
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.data.rows.select import select
from lorajob_runtime.models import placement as placements
from lorajob_runtime.models import step_time
from lorajob_runtime.models.gpu_speeds import NETWORKS, GpuSpeed, Network
from lorajob_runtime.models.placement import EstimatedPlacement
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.models.step_time import StepTime

BYTES_PER_TOKEN = 3.5
"""Of a dataset's file: Chinese takes three bytes a character and less than one token, English four bytes a token."""

WORTH_DOUBLING = 1.5
"""How many times as fast twice as many GPUs must be."""

_COUNTS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4), (8, 8))
"""(GPUs of a node, nodes), each twice the one before it."""


class KnownDataset(Protocol):
    """What a plan needs of a dataset on this machine: rows and unpacked bytes; None where they are not counted."""

    @property
    def rows(self) -> int | None: ...

    @property
    def text_bytes(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Speed of all GPUs together as it is worked out, and of one epoch where the dataset is on this machine."""

    tokens_per_second: int
    epoch_tokens: int | None
    gpu: GpuSpeed
    step: StepTime
    network: Network | None
    """What connects the nodes, as is assumed; None on one node."""
    worth: Mapping[Network, int]
    """How many GPUs pay, for what may connect the nodes: up to so many each doubling gives WORTH_DOUBLING."""

    @property
    def epoch_seconds(self) -> int | None:
        return None if self.epoch_tokens is None else round(self.epoch_tokens / self.tokens_per_second)


def estimate(
    shapes: Architecture,
    spec: RunSpec,
    placement: EstimatedPlacement,
    gpu: Gpu,
    local: KnownDataset | None,
) -> Speed | None:
    """The speed of a run spread so; None where the GPUs are not known or cannot hold the model.

    A micro-batch is as large as training makes it, or all that a GPU has of a step of the dataset where that is less.
    """
    if gpu.speed is None or gpu.size is None or not placement.fits:
        return None
    gpus, nodes = spec.resources.gpus, spec.resources.nodes
    rows, row_tokens = trained_rows(spec, local), _row_tokens(spec, local)
    network: Network = "infiniband"
    usual = placements.usual_tokens(shapes, spec, placement.estimate, gpus=gpus, nodes=nodes, gpu_bytes=gpu.size)
    step = step_of(shapes, spec, placement, gpu.speed, usual, row_tokens, (gpus, nodes), network)
    return Speed(
        tokens_per_second=max(1, round(_pace(step, gpus * nodes))),
        epoch_tokens=None if rows is None or row_tokens is None else round(rows * row_tokens),
        gpu=gpu.speed,
        step=step,
        network=network if nodes > 1 else None,
        worth=_worth(shapes, spec, placement.experts, gpu.speed, gpu.size, row_tokens),
    )


def step_of(
    shapes: Architecture,
    spec: RunSpec,
    placement: EstimatedPlacement,
    gpu: GpuSpeed,
    usual_tokens: int,
    row_tokens: float | None,
    count: tuple[int, int],
    network: Network,
) -> StepTime:
    """Without a dataset to know the rows of, a step is one micro-batch as large as training makes them."""
    tokens, micro_batches = usual_tokens, 1
    if row_tokens is not None:
        tokens = max(1, round(spec.train.batch_size * spec.train.gradient_accumulation * row_tokens))
        micro_batches = math.ceil(tokens / usual_tokens)
    return step_time.estimate(
        shapes,
        spec,
        placement.estimate,
        gpu,
        gpus=count[0],
        nodes=count[1],
        tokens=tokens,
        micro_batches=micro_batches,
        row_tokens=row_tokens,
        network=network,
    )


def _pace(step: StepTime, gpus: int) -> float:
    return gpus * step.tokens / step.total


def _worth(
    shapes: Architecture, spec: RunSpec, experts: bool, gpu: GpuSpeed, size: int, row_tokens: float | None
) -> Mapping[Network, int]:
    """For each network up to how many GPUs a doubling gives WORTH_DOUBLING, from the fewest that hold the model."""
    paces: dict[Network, list[tuple[int, float]]] = {network: [] for network in NETWORKS}
    for gpus, nodes in _COUNTS:
        placed = placements.choose(shapes, spec, gpus=gpus, nodes=nodes, gpu_bytes=size, experts=experts)
        if not placed.fits:
            continue
        usual = placements.usual_tokens(shapes, spec, placed.estimate, gpus=gpus, nodes=nodes, gpu_bytes=size)
        for network, known in paces.items():
            step = step_of(shapes, spec, placed, gpu, usual, row_tokens, (gpus, nodes), network)
            known.append((gpus * nodes, _pace(step, gpus * nodes)))
    return {network: _last_worth_it(known) for network, known in paces.items() if known}


def _last_worth_it(paces: Sequence[tuple[int, float]]) -> int:
    for (gpus, pace), (_, doubled) in itertools.pairwise(paces):
        if doubled < WORTH_DOUBLING * pace:
            return gpus
    return paces[-1][0]


def trained_rows(spec: RunSpec, local: KnownDataset | None) -> int | None:
    if local is None or not local.rows:
        return None
    return len(select(local.rows, spec.data.rows, spec.data.eval_rows).train)


def _row_tokens(spec: RunSpec, local: KnownDataset | None) -> float | None:
    """Of a mean row of a dataset on this machine, from its file's size; no more than the longest allowed."""
    if local is None or not local.rows or local.text_bytes is None:
        return None
    return min(spec.data.max_length, local.text_bytes / local.rows / BYTES_PER_TOKEN)
