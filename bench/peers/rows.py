"""The token rows of a run in the order of its steps, as single rows or joined, for trainers of others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from lorajob_runtime.data.tokens import TokenRows

IGNORED = -100


def example(rows: TokenRows, numbers: Sequence[int]) -> dict[str, list[int]]:
    """Those rows end to end: "input_ids", "labels" (IGNORED where no loss is) and each row's length in "lengths"."""
    ids: list[int] = []
    labels: list[int] = []
    for number in numbers:
        tokens, targets = rows.row(number)
        ids += tokens.tolist()
        labels += [int(token) if target else IGNORED for token, target in zip(tokens, targets, strict=True)]
    return {"input_ids": ids, "labels": labels, "lengths": [len(rows.row(number)[0]) for number in numbers]}


def packs(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices into `lengths` in so many groups of about the same sum: the longest first, to the lightest group."""
    groups: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        lightest = sums.index(min(sums))
        groups[lightest].append(index)
        sums[lightest] += lengths[index]
    return groups


def packs_of_steps(lengths_of_steps: Sequence[Sequence[int]], limit: int) -> list[list[list[int]]]:
    """`packs` of each step's rows, as few as keep to `limit` tokens each and are the same number in every step."""
    most = min(len(lengths) for lengths in lengths_of_steps)
    count = min(most, math.ceil(max(sum(lengths) for lengths in lengths_of_steps) / limit))
    while True:
        packed = [packs(lengths, count) for lengths in lengths_of_steps]
        sums = (
            sum(lengths[i] for i in group)
            for lengths, groups in zip(lengths_of_steps, packed, strict=True)
            for group in groups
        )
        if count == most or max(sums) <= limit:
            return packed
        count += 1


def write(path: Path, rows: TokenRows, groups: Iterable[Sequence[int]]) -> None:
    """One line of JSON for each group of row numbers, as `example` makes it."""
    with path.open("w") as file:
        file.writelines(json.dumps(example(rows, numbers)) + "\n" for numbers in groups)
