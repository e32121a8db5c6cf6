"""The fan-out: a sink that raises, hangs or is slow is its own trouble."""

from __future__ import annotations

import io
import json
import threading

import pytest

from lorajob_runtime.report.fanout import Fanout
from lorajob_runtime.report.jsonl import JsonLines
from waiting import wait_until


class Recorder:
    """Keeps what it gets; waits for `gate` before each event, raises at the events it is told to."""

    def __init__(self, name: str = "recorder", *, gate: threading.Event | None = None, raises: bool = False) -> None:
        self.name = name
        self.events: list[dict] = []
        self.limits: list[float] = []
        self._gate = gate
        self._raises = raises

    def handle(self, event: dict) -> None:
        if self._gate is not None:
            self._gate.wait()
        if self._raises:
            raise OSError("the stream\nis broken")
        self.events.append(event)

    def close(self, limit_seconds: float) -> None:
        self.limits.append(limit_seconds)


def steps(count: int) -> list[dict]:
    return [{"event": "step", "step": number} for number in range(count)]


def test_every_sink_gets_every_event_in_order_and_is_closed():
    sinks = [Recorder("one"), Recorder("two")]
    fanout = Fanout(sinks, warn=pytest.fail)

    for event in steps(100):
        fanout.post(event)
    fanout.close(5)

    assert [sink.events for sink in sinks] == [steps(100), steps(100)]
    assert [len(sink.limits) for sink in sinks] == [1, 1]


def test_a_sink_that_raises_is_warned_of_once_and_switched_off():
    warnings: list[str] = []
    broken, whole = Recorder("broken", raises=True), Recorder("whole")
    fanout = Fanout([broken, whole], warn=warnings.append)

    for event in steps(50):
        fanout.post(event)
    fanout.close(5)

    assert warnings == ["report to broken is off: OSError: the stream is broken"]
    assert whole.events == steps(50)
    assert len(broken.limits) == 1


def test_a_sink_that_hangs_holds_up_neither_the_run_nor_its_end():
    warnings: list[str] = []
    gate = threading.Event()
    hanging, whole = Recorder("hanging", gate=gate), Recorder("whole")
    fanout = Fanout([hanging, whole], warn=warnings.append)

    for event in steps(1000):
        fanout.post(event)
    wait_until(lambda: len(whole.events) == 1000, what="every event in the other sink")
    fanout.close(0.2)

    assert whole.events == steps(1000)
    assert warnings == ["report to hanging did not finish in time and was abandoned"]
    assert hanging.limits == [0.0]
    gate.set()


def test_a_slow_sink_misses_the_oldest_steps_and_nothing_else():
    warnings: list[str] = []
    gate = threading.Event()
    slow = Recorder("slow", gate=gate)
    fanout = Fanout([slow], warn=warnings.append, capacity=10)

    rare = [{"event": kind, "step": 0} for kind in ("sample", "evaluation", "checkpoint")]
    for event in [*rare, *steps(100), {"event": "end"}]:
        fanout.post(event)
    gate.set()
    fanout.close(5)

    kinds = [event["event"] for event in slow.events]
    assert kinds[:3] == ["sample", "evaluation", "checkpoint"]
    assert kinds[-1] == "end"
    kept = [event["step"] for event in slow.events if event["event"] == "step"]
    assert kept == list(range(100 - len(kept), 100))
    assert warnings == [f"report to slow was too slow: {100 - len(kept)} step events were left out"]


def test_a_sink_that_waits_for_something_is_woken_while_no_event_comes():
    woken = threading.Event()

    class Waiting(Recorder):
        def idle(self) -> None:
            woken.set()

    fanout = Fanout([Waiting()], warn=pytest.fail)

    assert woken.wait(60)
    fanout.close(5)


def test_what_is_posted_after_the_end_is_not_waited_for():
    sink = Recorder()
    fanout = Fanout([sink], warn=pytest.fail)
    fanout.close(5)

    fanout.post({"event": "step", "step": 1})
    fanout.close(5)

    assert sink.events == []


def test_json_lines_are_one_object_a_line():
    stream = io.StringIO()
    sink = JsonLines(stream)

    sink.handle({"event": "sample", "output": "甄嬛\nline"})
    sink.handle({"event": "end", "exit_code": 0})

    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "sample", "output": "甄嬛\nline"},
        {"event": "end", "exit_code": 0},
    ]


def test_a_reader_of_json_lines_may_go_away():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    sink = JsonLines(Gone())

    sink.handle({"event": "end"})
    sink.close(1)
