"""What a person sees: plain lines, and a bar on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import threading

import pytest

from golden.said import Said
from lorajob_runtime.contract.text import binary_size, duration, short_count, truncate
from lorajob_runtime.report.console import Console
from lorajob_runtime.report.progress import Progress, View, bar

START = 1_000_000.0
DATA = {
    "event": "report",
    "name": "data",
    "verdict": "alpaca: instruction, input, output",
    "rows_used": 200,
    "rows_selected": 203,
    "rows_dropped": {"without an answer": 3},
    "rows_truncated": 2,
    "tokens": 12345,
    "target_tokens": 4000,
    "max_tokens": 300,
    "eval_rows": 5,
    "notes": ["column text is not used"],
}
TARGETS = {
    "event": "report",
    "name": "targets",
    "targets": {"q_proj": 30, "v_proj": 30},
    "trained_parameters": 4884480,
    "all_parameters": 139_400_000,
}
DECIDED = {
    "event": "report",
    "name": "decided",
    "processes": 2,
    "device": "cpu",
    "gradient_checkpointing": False,
    "total_steps": 25,
    "global_batch": 16,
    "precision": "bf16",
}


def a_run() -> list[dict]:
    """Twenty-five steps, one a second."""
    log = [
        {"event": "phase", "name": "fetch"},
        {"event": "report", "name": "model", "source": "hf:org/name", "revision": "abc"},
        {"event": "phase", "name": "data"},
        DATA,
        {"event": "phase", "name": "train"},
        TARGETS,
        DECIDED,
        {"event": "sample", "step": 0, "prompt": "Who are\nyou?", "output": "\x1b[31mI am\x07 red", "reference": ""},
    ]
    for number in range(1, 26):
        log.append(
            {"event": "step", "step": number, "total_steps": 25, "loss": 3.0, "tokens": 9, "tokens_per_second": 12345.0}
        )
    log += [
        {"event": "evaluation", "step": 25, "loss": 1.5, "perplexity": 4.4817, "target_tokens": 9},
        {"event": "checkpoint", "step": 25, "path": "checkpoints/step-000025"},
        {"event": "report", "name": "warning", "message": "SwanLab: no key"},
        {"event": "report", "name": "odd", "a": 1, "b": [1, 2], "c": {"x": 1}},
        {"event": "end", "exit_code": 0, "class": "succeeded", "message": "the adapter is runs/poems/adapter"},
    ]
    return [{"time": START + second} | event for second, event in enumerate(log)]


class Clock:
    """Shows the time of the event that is shown."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def show(stream, log, **options) -> None:
    clock = Clock()
    console = Console(stream, clock=clock, **options)
    for event in log:
        clock.now = max(clock.now, event["time"])
        console.handle(event)
    console.close(5)


def test_without_a_terminal_there_are_plain_lines(said: Said):
    stream = io.StringIO()

    show(stream, a_run())

    said(stream.getvalue())


def test_adapters_that_train_without_the_dropout_asked_for_are_a_warning():
    stream = io.StringIO()
    targets = {"groups": {}, "without_dropout": ["experts", "router"]}

    show(stream, [{"time": START} | TARGETS | targets])

    assert stream.getvalue().splitlines()[-1] == "warning: lora.dropout is 0 for the adapters of experts and router"


@pytest.mark.parametrize(("rows", "said"), [(1, "1 row"), (15, "15 rows"), (16, "16 rows"), (17, "16 rows")])
def test_a_step_is_said_to_have_no_more_rows_than_the_dataset(rows, said):
    stream = io.StringIO()

    show(stream, [{"time": START} | DECIDED | {"rows": rows}])

    assert stream.getvalue().startswith(f"training: 25 steps of {said} on 2 cpu processes")


@pytest.mark.parametrize(("device", "said"), [("cuda", "bf16, flash attention, without"), ("cpu", "bf16, without")])
def test_on_gpus_it_is_said_what_works_out_the_attention(device, said):
    stream = io.StringIO()

    show(stream, [{"time": START} | DECIDED | {"device": device, "attention": "flash"}])

    assert said in stream.getvalue()


def test_the_end_comes_after_what_the_other_reports_still_had_to_say():
    stream = io.StringIO()
    log = a_run()
    late = {"event": "report", "time": log[-1]["time"], "name": "warning", "message": "late"}

    show(stream, [*log, late])

    assert stream.getvalue().splitlines()[-2:] == [
        "warning: late",
        "done after 37s: the adapter is runs/poems/adapter",
    ]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            {"exit_code": 11, "class": "data", "message": "x.json is empty", "hint": "give it rows"},
            ["failed after 0s (data, exit code 11): x.json is empty", "hint: give it rows"],
        ),
        (
            {"exit_code": 30, "class": "stopped", "message": "stopped at step 4", "hint": ""},
            ["stopped after 0s: stopped at step 4"],
        ),
    ],
)
def test_an_end_that_is_none_says_why_and_what_to_do(event, expected):
    stream = io.StringIO()

    show(stream, [{"event": "end", "time": START} | event])

    assert stream.getvalue().splitlines() == expected


def test_what_an_earlier_start_logged_is_not_shown_again():
    stream = io.StringIO()
    earlier = [event | {"time": event["time"] - 5000} for event in a_run()]
    step = {"event": "step", "time": START + 1, "step": 30, "total_steps": 40, "loss": 2.0, "tokens_per_second": 10.0}

    show(stream, [*earlier, {"event": "phase", "time": START, "name": "train"}, step])

    lines = stream.getvalue().splitlines()
    assert lines[0] == "train"
    assert lines[1].startswith("step 30/40  75%")
    assert "ETA" not in lines[1]
    assert len(lines) == 2


def test_a_stream_that_takes_ascii_only_gets_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    show(stream, [{"event": "sample", "time": START, "step": 0, "prompt": "你是谁", "output": "x", "reference": ""}])
    stream.flush()

    assert raw.getvalue() == b"sample at step 0: ??? -> x\n"


def on_terminal(log, *, encoding: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal gets."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    near, far = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(near, 65536):
                got.append(data)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(far, "w", encoding=encoding) as stream:
        show(stream, log)
    reader.join(60)
    os.close(near)
    return b"".join(got).decode(encoding)


@pytest.mark.parametrize("columns", [80, 40, 120])
def test_on_a_terminal_a_bar_stays_below_the_lines_and_goes_at_the_end(columns, monkeypatch):
    shown = on_terminal(a_run(), encoding="utf-8", columns=columns, monkeypatch=monkeypatch)

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    drawn = [line for part in plain.split("\n") for line in part.split("\r") if "━" in line or "─" in line]
    assert drawn
    assert all(len(line) < columns for line in drawn)
    assert "\x07" not in shown
    assert "\x1b[31mI am" not in shown
    assert "checkpoint at step 25" in plain
    last = [line for line in plain.replace("\r", "\n").split("\n") if line][-1]
    assert last == "done after 37s: the adapter is runs/poems/adapter"


def test_a_terminal_that_is_not_utf8_gets_an_ascii_bar(monkeypatch):
    shown = on_terminal(a_run(), encoding="iso-8859-1", columns=80, monkeypatch=monkeypatch)

    assert "#" in shown
    assert "━" not in shown


def test_a_bar_leaves_out_what_does_not_fit():
    view = View(phase="train", began=0, step=337, total=702, loss=2.6426, tokens_per_second=12345, seconds_left=750)

    lines = {width: "".join(bar(view, width, now=0, ascii_only=True)) for width in (79, 50, 40, 30, 20, 8)}

    assert all(len(line) <= width for width, line in lines.items())
    assert "tokens/s" in lines[79]
    assert "tokens/s" not in lines[50]
    assert "ETA 12m 30s" in lines[40]
    assert "48%" in lines[20]


def test_time_left_counts_steps_of_this_start_only():
    progress = Progress(since=START)
    progress.take({"event": "phase", "time": START - 9000, "name": "train"})
    progress.take({"event": "step", "time": START - 9000, "step": 10, "total_steps": 20, "loss": 1.0})
    progress.take({"event": "phase", "time": START, "name": "train"})
    for number in (11, 12, 13):
        progress.take({"event": "step", "time": START + 2 * number, "step": number, "total_steps": 20, "loss": 1.0})

    assert progress.view.seconds_left == 14.0


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (short_count(950), "950"),
        (short_count(12345), "12.3k"),
        (short_count(999_600), "1M"),
        (binary_size(1536), "1.5 KiB"),
        (binary_size(3 * 2**30), "3.0 GiB"),
        (duration(42), "42s"),
        (duration(750), "12m 30s"),
        (duration(7500), "2h 05m"),
        (duration(200_000), "2d 07h"),
        (truncate("a\x1b[0m\n b\u202ec", 7), "a␛[0m …"),
    ],
)
def test_numbers_and_texts_read_easily(shown, expected):
    assert shown == expected
