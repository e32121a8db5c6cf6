"""Which rows make up a step, who takes which of them, and in what portions. Pure: numbers in, numbers out.

The rows of an optimizer step are exactly those of the reference recipe (rows a device x accumulation x devices, from a
seeded shuffle); only how they are spread over ranks and folded into micro-batches differs, which changes no sum.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """How many steps there are. `global_batch` is rows an optimizer step over all ranks."""

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


def spread(rows: Sequence[int], lengths: Lengths, ranks: int) -> list[list[int]]:
    """Shares the rows out over ranks so that their tokens are as even as may be: the longest first to the least laden.

    Every row is in exactly one share. With fewer rows than ranks some shares are empty.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    heap = [(0, rank) for rank in range(ranks)]
    for row in sorted(rows, key=lambda row: (-int(lengths[row]), row)):
        load, rank = heapq.heappop(heap)
        shares[rank].append(row)
        heapq.heappush(heap, (load + int(lengths[row]), rank))
    return shares


def fold(rows: Sequence[int], lengths: Lengths, token_budget: int) -> list[list[int]]:
    """Folds rows into as few micro-batches of at most `token_budget` tokens as first-fit-decreasing finds.

    A row longer than the budget is a micro-batch of its own.
    """
    micro_batches: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: (-int(lengths[row]), row)):
        length = int(lengths[row])
        for index, free in enumerate(room):
            if length <= free:
                micro_batches[index].append(row)
                room[index] -= length
                break
        else:
            micro_batches.append([row])
            room.append(token_budget - length)
    return micro_batches
