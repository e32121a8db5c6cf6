"""What each Ctrl-C means."""

from __future__ import annotations

import signal

import pytest

from lorajob_runtime.run.signals import StopSignals


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signals(clock: Clock) -> StopSignals:
    return StopSignals(clock=clock)


def test_the_first_signal_only_asks(signals: StopSignals) -> None:
    signals.receive(signal.SIGTERM)

    assert signals.requested
    assert not signals.forced


def test_the_first_signal_breaks_off_work_that_may_be_dropped(signals: StopSignals) -> None:
    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        signals.receive(signal.SIGINT)

    assert not signals.forced


def test_work_that_may_be_dropped_is_not_begun_after_a_signal(signals: StopSignals) -> None:
    signals.receive(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        pytest.fail("it was begun")


def test_a_second_ctrl_c_ends_at_once(signals: StopSignals, clock: Clock) -> None:
    signals.receive(signal.SIGINT)
    clock.now += 0.6

    with pytest.raises(KeyboardInterrupt):
        signals.receive(signal.SIGINT)

    assert signals.forced


@pytest.mark.parametrize(("number", "later"), [(signal.SIGINT, 0.1), (signal.SIGTERM, 60.0), (signal.SIGHUP, 60.0)])
def test_an_echo_or_another_wish_to_stop_is_no_second_ctrl_c(
    signals: StopSignals, clock: Clock, number: signal.Signals, later: float
) -> None:
    signals.receive(signal.SIGINT)
    clock.now += later

    signals.receive(number)

    assert not signals.forced


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before
