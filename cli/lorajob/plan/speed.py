"""Roughly how fast a run trains, from its GPUs, its model and its dataset's size. Pure.

The figures are rough, and `lorajob plan` says with them what they rest on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lorajob.plan.gpus import Gpu
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.data.rows.select import select
from lorajob_runtime.models import memory_plan
from lorajob_runtime.models.placement import EstimatedPlacement
from lorajob_runtime.models.shapes import Architecture

BYTES_PER_TOKEN = 3.5
"""Of a dataset's file: Chinese takes three bytes a character and less than one token, English four bytes a token."""

REACHED, REACHED_BY_EXPERTS = 0.4, 0.12
"""Share of that which training reaches: published LoRA runs on H100s with dense models, and with routed experts."""

NODE_BYTES_PER_SECOND, NETWORK_BYTES_PER_SECOND = 150e9, 20e9
"""At which a GPU gathers sharded weights within a node, and over several."""


class KnownDataset(Protocol):
    """What a plan needs of a dataset on this machine: rows and unpacked bytes; None where they are not counted."""

    @property
    def rows(self) -> int | None: ...

    @property
    def text_bytes(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Rough speed of all GPUs together, and of one epoch where the dataset is on this machine."""

    tokens_per_second: int
    epoch_tokens: int | None
    teraflops: int
    reached: float
    gathered_per_second: float | None
    """Bytes a second, where gathering sharded weights takes longer than computing with them."""

    @property
    def epoch_seconds(self) -> int | None:
        return None if self.epoch_tokens is None else round(self.epoch_tokens / self.tokens_per_second)


def estimate(
    shapes: Architecture,
    spec: RunSpec,
    placement: EstimatedPlacement,
    gpu: Gpu,
    most: int | None,
    local: KnownDataset | None,
) -> Speed | None:
    """From 4 (activations recomputed: 6) floating-point operations for every active weight and token, and from what
    gathering sharded weights twice for every micro-batch takes: the slower of the two counts.

    A micro-batch is as large as fits, or all that a GPU has of a step of the dataset where that is less."""
    if gpu.teraflops is None or most is None:
        return None
    ranks = spec.resources.gpus * spec.resources.nodes
    rows, row_tokens = trained_rows(spec, local), _row_tokens(spec, local)
    step_rows = spec.train.batch_size * spec.train.gradient_accumulation
    tokens = most if row_tokens is None else min(most, max(1, round(step_rows * row_tokens)))
    estimate = placement.estimate
    reached = REACHED_BY_EXPERTS if shapes.has_experts else REACHED
    operations = (6 if estimate.gradient_checkpointing else 4) * shapes.active_parameters
    seconds, gathered_per_second = tokens * operations / (gpu.teraflops * 1e12 * reached), None
    if placement.sharded:
        is_within_node = placement.replicas > 1 or spec.resources.nodes == 1
        rate = NODE_BYTES_PER_SECOND if is_within_node else NETWORK_BYTES_PER_SECOND
        gathering = 2 * memory_plan.weight_bytes(shapes, spec, estimate.precision) / rate
        if gathering > seconds:
            seconds, gathered_per_second = gathering, rate
    return Speed(
        tokens_per_second=max(1, round(ranks * tokens / seconds)),
        epoch_tokens=None if rows is None or row_tokens is None else round(rows * row_tokens),
        teraflops=gpu.teraflops,
        reached=reached,
        gathered_per_second=gathered_per_second,
    )


def trained_rows(spec: RunSpec, local: KnownDataset | None) -> int | None:
    if local is None or not local.rows:
        return None
    return len(select(local.rows, spec.data.rows, spec.data.eval_rows).train)


def _row_tokens(spec: RunSpec, local: KnownDataset | None) -> float | None:
    """Of a mean row of a dataset on this machine, from its file's size; no more than the longest allowed."""
    if local is None or not local.rows or local.text_bytes is None:
        return None
    return min(spec.data.max_length, local.text_bytes / local.rows / BYTES_PER_TOKEN)
