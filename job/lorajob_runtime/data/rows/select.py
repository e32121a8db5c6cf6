"""Which rows of a file are trained on and which are held out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import row_slice


@dataclass(frozen=True, slots=True)
class Rest:
    """The indices of one range that are not in another, in their order; both count up by one."""

    wanted: range
    without: range

    def __len__(self) -> int:
        return len(self.wanted) - self.shared

    def __iter__(self) -> Iterator[int]:
        return (index for index in self.wanted if index not in self.without)

    def __contains__(self, index: object) -> bool:
        return index in self.wanted and index not in self.without

    @property
    def shared(self) -> int:
        """How many are in both ranges."""
        return len(range(max(self.wanted.start, self.without.start), min(self.wanted.stop, self.without.stop)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Indices into the file, counted from 0 as row ranges are. `overlap` rows were asked for by both ranges."""

    train: Rest
    evaluation: range
    overlap: int

    @property
    def stop(self) -> int:
        """The index behind the last one that is meant."""
        return max(self.train.wanted.stop, self.evaluation.stop)


def select(total: int, rows: str | None, eval_rows: str | None) -> Selection:
    """Applies the two row ranges, Python slices over the same file; a row in both is only held out.

    Raises DataError when a range selects nothing, or when nothing is left to train on.
    """
    wanted = range(total)[row_slice(rows)]
    held_out = range(total)[row_slice(eval_rows)] if eval_rows is not None else range(0)
    if not wanted:
        raise DataError(f"data.rows {rows!r} selects no row: the file has {total}", hint="correct data.rows")
    if eval_rows is not None and not held_out:
        raise DataError(
            f"data.evalRows {eval_rows!r} selects no row: the file has {total}", hint="correct data.evalRows"
        )
    train = Rest(wanted, held_out)
    if not len(train):
        raise DataError(
            f"data.evalRows {eval_rows!r} holds out every row of data.rows {rows or ':'!r}", hint="correct one of them"
        )
    # Without a range of their own, training rows are simply the others.
    overlap = train.shared if rows is not None else 0
    return Selection(train=train, evaluation=held_out, overlap=overlap)
