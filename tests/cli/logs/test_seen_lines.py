"""A followed log whose stream breaks off and is taken up again: every line once, whatever the times and the cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from lorajob.logs.log_lines import Line
from lorajob.logs.seen_lines import SeenLines

BEGAN = 1795251600.0


def _at(second: float, text: str) -> Line:
    time = datetime.fromtimestamp(BEGAN + second, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return Line(time=time, text=text)


def _served(log: Sequence[Line], since: str | None, end: int) -> Iterator[Line]:
    """What a kubelet sends of a log file: from a whole second on, in the order of the file."""
    begin = datetime.fromisoformat(since).timestamp() if since else 0.0
    return (line for line in log[:end] if line.moment >= begin)


def _followed(log: Sequence[Line], cuts: Sequence[int]) -> list[Line]:
    """What is shown of a log whose stream ends at each of the cuts and then goes on to the end."""
    seen = SeenLines()
    return [line for end in (*cuts, len(log)) for line in seen.new(_served(log, seen.since, end))]


@pytest.mark.parametrize("seed", range(300))
def test_each_line_is_shown_once_wherever_the_stream_breaks(seed: int) -> None:
    rng = random.Random(seed)
    second, log = 0.0, []
    for _ in range(rng.randint(1, 60)):
        # most lines share a time, few texts make them alike, and some are written a little out of order
        second += rng.choice([0, 0, 0, 0, 0.000001, 0.3, 1, 5])
        log.append(_at(max(0, second - rng.choice([0, 0, 0, 0.2])), rng.choice(["", "a", "a", "b", "step 1"])))
    cuts = sorted(rng.randint(0, len(log)) for _ in range(rng.randint(0, 6)))

    assert _followed(log, cuts) == log


@pytest.mark.parametrize("seed", range(200))
def test_what_a_rotation_left_is_shown_once(seed: int) -> None:
    """After a rotation only the new file is sent: what was shown of the old one does not come again."""
    rng = random.Random(1000 + seed)
    second, log = 0.0, []
    for number in range(rng.randint(2, 60)):
        second += rng.choice([0, 0, 0, 0.000001, 0.4, 2])
        log.append(_at(second, f"line {number}"))
    cut = rng.randint(1, len(log))
    rotated = rng.randint(0, cut)
    seen = SeenLines()

    shown = list(seen.new(_served(log, seen.since, cut)))
    shown += seen.new(_served(log[rotated:], seen.since, len(log) - rotated))

    assert shown == log


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("read", ["whole", "tail"])
def test_a_stream_goes_on_where_the_log_that_was_read_before_ends(seed: int, read: str) -> None:
    rng = random.Random(2000 + seed)
    log = [_at(rng.choice([0, 0, 0, 1]) + number // 20, rng.choice("aab")) for number in range(60)]
    log.sort(key=lambda line: line.moment)
    seen = SeenLines()
    for line in log[:40] if read == "whole" else log[3:40]:
        seen.take(line)

    assert list(seen.new(_served(log, seen.since, len(log)))) == log[40:]


def test_lines_of_one_buffer_are_all_shown() -> None:
    """CRI-O stamps every line of what it reads at once with one time."""
    traceback = [_at(3.25, text) for text in ("Traceback (most recent call last):", '  File "x.py"', "ValueError: x")]

    assert _followed(traceback, []) == traceback
    assert _followed(traceback, [1]) == traceback
    assert _followed(traceback, [2, 2, 3]) == traceback


def test_of_a_line_that_was_cut_only_the_end_is_shown_when_it_comes_again() -> None:
    seen = SeenLines()

    first = list(seen.new([_at(1, "a"), _at(2, "step 1 of 1")]))
    second = list(seen.new([_at(1, "a"), _at(2, "step 1 of 100"), _at(2, "step 2")]))
    third = list(seen.new([_at(1, "a"), _at(2, "step 1 of 100"), _at(2, "step 2"), _at(3, "b")]))

    assert [line.text for line in (*first, *second, *third)] == ["a", "step 1 of 1", "00", "step 2", "b"]


def test_the_end_of_a_line_in_parts_does_not_come_again() -> None:
    """Asked from a second on, a kubelet leaves out the parts of a long line that were written before it."""
    seen = SeenLines()
    list(seen.new([_at(9.9, "part one, part two"), _at(13.0, "next")]))

    again = list(seen.new([_at(12.1, "part two"), _at(13.0, "next"), _at(13.0, "new")]))

    assert [line.text for line in again] == ["new"]


def test_it_is_asked_from_whole_seconds_before_the_last_line() -> None:
    seen = SeenLines()
    assert seen.since is None

    seen.take(_at(10.75, "a"))

    assert seen.since == datetime.fromtimestamp(BEGAN + 9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
