"""The pauses before something is asked again."""

from __future__ import annotations

import random
import time

import pytest

from lorajob_runtime.contract import backoff
from lorajob_runtime.contract.backoff import Pauses


@pytest.mark.parametrize("seed", range(20))
def test_pauses_double_up_to_the_longest_and_differ(seed: int) -> None:
    pauses = Pauses(first_seconds=0.5, longest_seconds=5, rng=random.Random(seed))

    taken = [pauses.take() for _ in range(8)]
    pauses.reset()

    for seconds, most in zip(taken, (0.5, 1, 2, 4, 5, 5, 5, 5), strict=True):
        assert most / 2 <= seconds <= most
    assert len(set(taken)) == 8
    assert pauses.take() <= 0.5


def test_a_pause_that_would_pass_the_deadline_is_not_made() -> None:
    slept: list[float] = []
    now = time.monotonic()

    assert backoff.wait(5, None, sleep=slept.append)
    assert backoff.wait(5, now + 600, sleep=slept.append)
    assert not backoff.wait(5, now + 4, sleep=slept.append)
    assert slept == [5, 5]
