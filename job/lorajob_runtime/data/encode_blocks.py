"""Large files encoded in blocks of rows, every second or third block by another process, and counted in order.

Each process reads the whole file and encodes the blocks that are its own: reading a row costs a fraction of what
encoding it does, and far less than to hand it over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np

from lorajob_runtime.data.encode import CHUNK_CHARACTERS, Encoder
from lorajob_runtime.data.encode_rows import EncodedRows, Numbered, Sink
from lorajob_runtime.data.rows.issues import IssueLog, RowIssue
from lorajob_runtime.data.rows.read import Source
from lorajob_runtime.data.rows.unused import UnusedNames
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.system import cgroup
from lorajob_runtime.system.side_by_side import side_by_side

Parts = tuple[EncodedRows, EncodedRows]

_ROWS = 2048
_ROWS_MIN = 20_000
"""Rows below which another process is not worth its start."""
_PROCESSES_MAX = 4
_SWITCH = "TOKENIZERS_PARALLELISM"
"""The tokenizers' library reads it before each of its own parallel loops."""


def processes_for(source: Source, rows: int, encoder: Encoder) -> int:
    """How many processes encode so many rows side by side; only tokenizers without code of their own may be copied."""
    if rows < _ROWS_MIN or not getattr(encoder.tokenizer, "is_fast", False):
        return 1
    return max(1, min(_PROCESSES_MAX, cgroup.usable_cores(), rows // rows_of_block(source)))


def rows_of_block(source: Source) -> int:
    """Rows of a block: no more text than is tokenised at once, by the average of the file."""
    return max(1, min(_ROWS, CHUNK_CHARACTERS * len(source) // max(1, source.size_bytes)))


def encode_blocks(
    processes: int,
    size: int,
    rows: Callable[[], Iterator[Numbered]],
    encode: Callable[[Iterator[Numbered], Parts], None],
    parts: Parts,
    *,
    samples: int,
    encoder: Encoder,
) -> None:
    """Does `encode(rows(), parts)` in blocks of `size` rows on so many processes.

    `rows` begins to read the file anew. Raises what it and `encode` raise, and MemoryError.
    """

    def share(number: int) -> Iterator[tuple[EncodedRows, EncodedRows, bool]]:
        for block, own in groupby(rows(), key=lambda numbered: numbered[0] // size):
            if block % processes == number:
                kept = _kept(), _kept()
                encode(own, kept)
                yield *kept, encoder.has_template

    with _one_thread_each():
        for *found, has_template in side_by_side(processes, share):
            if has_template:
                # what a person is told of it is asked of this one
                _ = encoder.template
            for part, block in zip(parts, found, strict=True):
                _merge(part, block, samples)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Has the tokenizers' library use one thread in each process."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


@dataclass(kw_only=True, slots=True)
class _KeptIssues(IssueLog):
    """Issues in their order, not counted yet."""

    every: list[RowIssue] = field(default_factory=list)

    def add(self, issue: RowIssue) -> None:
        self.every.append(issue)


class _KeptNames(UnusedNames):
    """Names of rows in their order, not counted yet."""

    def __init__(self) -> None:
        super().__init__()
        self.every: list[set[str]] = []

    def add(self, names: Iterable[str]) -> None:
        self.every.append(set(names))


class _KeptRows:
    """A sink that keeps what it gets; pickled as a few arrays."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._lengths: list[list[int]] = []
        self._ids: list[Ids] = []
        self._targets: list[Mask] = []

    def add(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None:
        self._numbers.append(number)
        self._lengths.append([len(ids) for ids, _ in sequences])
        for ids, targets in sequences:
            self._ids.append(ids)
            self._targets.append(targets)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._numbers, self._lengths, *self._joined()

    def __setstate__(self, state: tuple[list[int], list[list[int]], Ids, Mask]) -> None:
        self._numbers, self._lengths = state[:2]
        self._ids, self._targets = [state[2]], [state[3]]

    def _joined(self) -> tuple[Ids, Mask]:
        if not self._ids:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.bool_)
        return np.concatenate(self._ids), np.concatenate(self._targets)

    def pass_on(self, sink: Sink) -> None:
        """Gives everything to another sink."""
        ids, targets = self._joined()
        at = 0
        for number, lengths in zip(self._numbers, self._lengths, strict=True):
            edges = list(accumulate(lengths, initial=at))
            sink.add(number, [(ids[start:stop], targets[start:stop]) for start, stop in pairwise(edges)])
            at = edges[-1]


def _kept() -> EncodedRows:
    return EncodedRows(sink=_KeptRows(), issues=_KeptIssues(), unused=_KeptNames())


def _merge(part: EncodedRows, block: EncodedRows, samples: int) -> None:
    """Counts a block as if its rows had come one by one."""
    assert isinstance(block.issues, _KeptIssues)  # noqa: S101 as _kept made it
    assert isinstance(block.unused, _KeptNames)  # noqa: S101
    assert isinstance(block.sink, _KeptRows)  # noqa: S101
    part.rows += block.rows
    part.sequences += block.sequences
    part.tokens += block.tokens
    part.target_tokens += block.target_tokens
    part.max_tokens = max(part.max_tokens, block.max_tokens)
    part.samples += block.samples[: samples - len(part.samples)]
    part.notes.update(block.notes)
    part.warnings.update(block.warnings)
    part.lengths.update(block.lengths)
    if block.shortest_fit is not None:
        part.note_fit(block.shortest_fit)
    for issue in block.issues.every:
        part.issues.add(issue)
    for names in block.unused.every:
        part.unused.add(names)
    block.sink.pass_on(part.sink)
