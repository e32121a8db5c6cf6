"""Which rows of a file are trained on and which are held out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lorajob_runtime.exits import DataError
from lorajob_runtime.spec import row_slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Indices into the file, counted from 0 as row ranges are. `overlap` rows were asked for by both ranges."""

    train: tuple[int, ...]
    evaluation: tuple[int, ...]
    overlap: int


def select(total: int, rows: str | None, eval_rows: str | None) -> Selection:
    """Applies the two row ranges, Python slices over the same file; a row in both is only held out.

    Raises DataError when a range selects nothing, or when nothing is left to train on.
    """
    wanted = range(total)[row_slice(rows)]
    held_out = range(total)[row_slice(eval_rows)] if eval_rows is not None else range(0)
    if not wanted:
        raise DataError(f"data.rows {rows!r} selects no row: the file has {total}")
    if eval_rows is not None and not held_out:
        raise DataError(f"data.evalRows {eval_rows!r} selects no row: the file has {total}")
    train = tuple(index for index in wanted if index not in held_out)
    if not train:
        raise DataError(f"data.evalRows {eval_rows!r} holds out every row of data.rows {rows or ':'!r}")
    # Without a range of their own, training rows are simply the others.
    overlap = len(wanted) - len(train) if rows is not None else 0
    return Selection(train=train, evaluation=tuple(held_out), overlap=overlap)
