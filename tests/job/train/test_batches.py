"""Which rows a step holds, and how they are spread and folded: every row once, nothing lost, the reference's order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.train import batches, schedule
from lorajob_runtime.train.schedule import Schedule

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.int64))


@given(lengths=LENGTHS, ranks=st.integers(1, 9))
def test_spreading_gives_every_row_to_exactly_one_rank(lengths: batches.Lengths, ranks: int) -> None:
    shares = batches.spread(range(len(lengths)), lengths, ranks)

    assert len(shares) == ranks
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))


@given(lengths=LENGTHS, ranks=st.integers(1, 9))
def test_no_rank_has_more_tokens_than_another_and_one_row(lengths: batches.Lengths, ranks: int) -> None:
    loads = [int(lengths[share].sum()) for share in batches.spread(range(len(lengths)), lengths, ranks)]

    assert max(loads) - min(loads) <= lengths.max()


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_folding_keeps_every_row_and_the_budget(lengths: batches.Lengths, budget: int) -> None:
    micro_batches = batches.fold(range(len(lengths)), lengths, budget)

    assert sorted(row for micro_batch in micro_batches for row in micro_batch) == list(range(len(lengths)))
    assert all(len(each) == 1 or lengths[each].sum() <= budget for each in micro_batches)


@given(rows=st.integers(1, 200), batch=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_an_epoch_holds_every_row_once_and_its_last_step_what_is_left(rows: int, batch: int, seed: int) -> None:
    plan = Schedule(rows=rows, global_batch=batch, epochs=2, max_steps=None, seed=seed)

    second = range(plan.steps_per_epoch + 1, 2 * plan.steps_per_epoch + 1)

    assert Counter(row for step in second for row in plan.rows_of(step)) == Counter(range(rows))
    assert len(plan.rows_of(plan.total_steps)) == (rows % batch or batch)
    assert plan.ends_epoch(plan.total_steps)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"), [(3729, 16, 3, 702), (4995, 16, 1, 313), (10, 4, 0.5, 2), (1, 16, 1, 1)]
)
def test_steps_are_counted_with_the_last_part_of_an_epoch(rows: int, batch: int, epochs: float, steps: int) -> None:
    assert Schedule(rows=rows, global_batch=batch, epochs=epochs, max_steps=None, seed=0).total_steps == steps


def test_max_steps_ends_a_run_sooner_and_never_later() -> None:
    assert Schedule(rows=100, global_batch=10, epochs=1, max_steps=3, seed=0).total_steps == 3
    assert Schedule(rows=100, global_batch=10, epochs=1, max_steps=99, seed=0).total_steps == 10


def test_the_shuffle_is_that_of_accelerates_seedable_sampler() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(50), data_seed=42)

    assert [list(sampler), list(sampler)] == [list(schedule.epoch_order(50, 42, epoch)) for epoch in (0, 1)]
