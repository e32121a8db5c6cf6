"""Row ranges: Python slices over one file, held-out rows never trained on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.rows.select import select

_bound = st.none() | st.integers(-20, 20)
_range = st.builds(
    lambda start, stop: f"{'' if start is None else start}:{'' if stop is None else stop}", _bound, _bound
)


def test_the_law_recipe_trains_on_rows_5_to_5000_and_holds_out_the_first_5() -> None:
    chosen = select(6000, "5:5000", ":5")
    assert (list(chosen.train), len(chosen.train)) == (list(range(5, 5000)), 4995)
    assert (list(chosen.evaluation), chosen.overlap, chosen.stop) == ([0, 1, 2, 3, 4], 0, 5000)


def test_rows_in_both_ranges_are_held_out() -> None:
    chosen = select(10, "2:8", ":4")
    assert (list(chosen.train), list(chosen.evaluation), chosen.overlap) == ([4, 5, 6, 7], [0, 1, 2, 3], 2)


def test_without_a_range_of_their_own_training_rows_are_the_others() -> None:
    chosen = select(5, None, "-2:")
    assert (list(chosen.train), list(chosen.evaluation), chosen.overlap) == ([0, 1, 2], [3, 4], 0)


@pytest.mark.parametrize(
    ("rows", "eval_rows", "reason"),
    [
        ("5:", None, "data.rows '5:' selects no row: the file has 5"),
        (None, "7:9", "data.evalRows '7:9' selects no row: the file has 5"),
        (":2", ":3", "data.evalRows ':3' holds out every row of data.rows ':2'"),
    ],
)
def test_a_range_that_leaves_nothing_is_an_error(rows: str | None, eval_rows: str | None, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        select(5, rows, eval_rows)


@given(total=st.integers(1, 25), rows=st.none() | _range, eval_rows=st.none() | _range)
def test_training_and_held_out_rows_are_apart_and_together_what_was_asked_for(
    total: int, rows: str | None, eval_rows: str | None
) -> None:
    try:
        chosen = select(total, rows, eval_rows)
    except DataError:
        return
    everything = list(range(total))
    asked = eval(f"everything[{rows}]") if rows else everything  # noqa: S307 - Python's own slices are the law
    held_out = eval(f"everything[{eval_rows}]") if eval_rows else []  # noqa: S307
    assert list(chosen.evaluation) == held_out
    trained = [index for index in asked if index not in held_out]
    assert (list(chosen.train), len(chosen.train)) == (trained, len(trained))
    assert [index for index in everything if index in chosen.train] == trained
    assert chosen.stop >= max(trained + held_out) + 1
    assert chosen.overlap == (len(set(asked) & set(held_out)) if rows else 0)
