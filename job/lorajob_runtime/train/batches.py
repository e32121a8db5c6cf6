"""Shares the rows of a step out over the ranks, and folds each share into micro-batches. Pure: numbers in, numbers out.

How rows are shared out and folded changes no sum: a step's loss and gradients are those of its rows together.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]


def spread(rows: Sequence[int], lengths: Lengths, ranks: int) -> list[list[int]]:
    """Shares rows out over ranks, tokens as even as possible: the longest row first, to the rank with the fewest.

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
