"""How many optimizer steps a run has, which rows belong to each, and the learning rate of each.

The rows of a step are exactly those of the reference recipe: rows a device x accumulation x devices, from a seeded
shuffle. The learning rates follow transformers' schedules of the same names.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from lorajob_runtime.contract.spec import TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The steps of a run. `global_batch` is rows an optimizer step over all ranks."""

    rows: int
    global_batch: int
    epochs: float
    max_steps: int | None
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch holds the rows that are left."""
        return math.ceil(self.rows / self.global_batch)

    @property
    def total_steps(self) -> int:
        steps = math.ceil(self.epochs * self.steps_per_epoch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch_of(self, step: int) -> float:
        """Epochs done after `step` (steps count from 1)."""
        return step / self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def rows_of(self, step: int) -> list[int]:
        """Row numbers of `step`, in the shuffle's order."""
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        order = epoch_order(self.rows, self.seed, epoch)
        return list(order[index * self.global_batch : (index + 1) * self.global_batch])


@functools.lru_cache(maxsize=2)
def epoch_order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The shuffle of one epoch (from 0), as accelerate's SeedableRandomSampler makes it for transformers.Trainer."""
    generator = torch.Generator().manual_seed(seed + epoch)
    return tuple(torch.randperm(rows, generator=generator).tolist())


def warmup_steps(train: TrainSpec, total_steps: int) -> int:
    """`warmup` in steps: a value below 1 is a share of all steps."""
    return math.ceil(train.warmup * total_steps) if train.warmup < 1 else int(train.warmup)


def learning_rate(train: TrainSpec, *, step: int, total_steps: int) -> float:
    """The rate that `step` (from 1) is made with."""
    warmup = warmup_steps(train, total_steps)
    done = step - 1
    if done < warmup:
        return train.learning_rate * done / max(1, warmup)
    if train.scheduler == "constant":
        return train.learning_rate
    progress = (done - warmup) / max(1, total_steps - warmup)
    if train.scheduler == "linear":
        return train.learning_rate * max(0.0, 1 - progress)
    return train.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
