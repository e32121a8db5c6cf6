"""What each Ctrl-C means."""

from __future__ import annotations

import signal

import pytest

from lorajob_runtime.run.signals import Interrupts


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def interrupts(clock: Clock) -> Interrupts:
    return Interrupts(clock=clock)


def test_the_first_signal_only_asks(interrupts: Interrupts) -> None:
    interrupts.take(signal.SIGTERM)

    assert interrupts.requested
    assert not interrupts.aborted


def test_the_first_signal_breaks_off_work_that_may_be_dropped(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        interrupts.take(signal.SIGINT)

    assert not interrupts.aborted


def test_work_that_may_be_dropped_is_not_begun_after_a_signal(interrupts: Interrupts) -> None:
    interrupts.take(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        pytest.fail("it was begun")


def test_a_second_ctrl_c_ends_at_once(interrupts: Interrupts, clock: Clock) -> None:
    interrupts.take(signal.SIGINT)
    clock.now += 0.6

    with pytest.raises(KeyboardInterrupt):
        interrupts.take(signal.SIGINT)

    assert interrupts.aborted


@pytest.mark.parametrize(("number", "later"), [(signal.SIGINT, 0.1), (signal.SIGTERM, 60.0), (signal.SIGHUP, 60.0)])
def test_an_echo_or_another_wish_to_stop_is_no_second_ctrl_c(
    interrupts: Interrupts, clock: Clock, number: signal.Signals, later: float
) -> None:
    interrupts.take(signal.SIGINT)
    clock.now += later

    interrupts.take(number)

    assert not interrupts.aborted


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before
