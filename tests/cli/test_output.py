"""How runs are shown to people: tables, ages, the page of one run."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import click
import pytest
from run_objects import BEGAN, NOW, at, condition, failed_pod, job, progress, running_pod

from lorajob import tables
from lorajob.runs import live
from lorajob.runs import page as display
from lorajob.runs.run_status import RunStatus
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract.kubernetes import QUEUE_LABEL, TerminationMessage

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0)}


def plain(lines: list[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


def training() -> RunStatus:
    return from_objects(job(ACTIVE, progress=progress(), labels={QUEUE_LABEL: "team"}), [running_pod()], (), NOW)


def failed() -> RunStatus:
    words = TerminationMessage(exit_code=11, failure="data", message="no row has an answer", hint="look at the columns")
    state = {"failed": 1, "conditions": [condition("Failed", reason="PodFailurePolicy")]}
    return from_objects(job(state), [failed_pod(code=11, words=words)], (), NOW)


def test_columns_are_as_wide_as_their_cells_and_numbers_stand_to_the_right() -> None:
    lines = tables.table(("NAME", "LOSS"), [("zhenhuan", "1.25"), ("a", "10.5")], right=("LOSS",))

    assert lines == [
        "NAME       LOSS",
        "zhenhuan   1.25",
        "a          10.5",
    ]


def test_chinese_letters_take_two_columns_and_an_empty_cell_shows_as_a_dash() -> None:
    lines = tables.table(("DATA", "QUEUE"), [("甄嬛.json", ""), ("huanhuan.json", "team")])

    assert [line.index(cell) for line, cell in zip(lines, ("QUEUE", "-", "team"), strict=True)] == [16, 14, 16]


@pytest.mark.parametrize(
    ("text", "columns", "shown"), [("short", 5, "short"), ("longer", 5, "long…"), ("甄嬛传甄嬛", 5, "甄嬛…")]
)
def test_a_clipped_text_fits_and_shows_that_it_was_cut(text: str, columns: int, shown: str) -> None:
    assert tables.clip(text, columns) == shown
    assert tables.width(shown) <= columns


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (1500, "25m"),
        (3 * 3600, "3h"),
        (5.5 * 3600, "5h30m"),
        (30 * 3600, "30h"),
        (6 * 86400 + 7200, "6d2h"),
        (40 * 86400, "40d"),
        (-5, "0s"),
    ],
)
def test_ages_are_those_of_kubectl(seconds: float, shown: str) -> None:
    assert tables.age(NOW - timedelta(seconds=seconds), NOW) == shown


def test_a_list_shows_how_far_each_run_is() -> None:
    lines = plain(display.runs([training(), failed()], NOW))

    assert [line.split() for line in lines] == [
        ["NAME", "PHASE", "PROGRESS", "ETA", "LOSS", "AGE", "MODEL", "GPUS"],
        ["zhenhuan", "Training", "43%", "12m", "30s", "1.2500", "10m", "qwen3-8b", "4"],
        ["zhenhuan", "Failed", "-", "-", "-", "10m", "qwen3-8b", "4"],
    ]
    assert len({line.index(word) for line, word in zip(lines, ("MODEL", "qwen3-8b", "qwen3-8b"), strict=True)}) == 1


def test_a_wide_list_says_why_too_and_one_of_all_namespaces_where() -> None:
    head, row = plain(display.runs([failed()], NOW, wide=True, namespaces=True))

    assert head.split() == ["NAMESPACE", *display.WIDE_HEADS]
    assert row.startswith("team        zhenhuan")
    assert row.endswith("data: no row has an answer")


def test_what_a_pod_expected_before_it_ended_is_not_shown() -> None:
    state = {"conditions": [condition("Suspended")]}
    suspended = from_job(job(state, progress=progress(), suspend=True), NOW)

    shown = "\n".join(plain(display.page(suspended, NOW)))

    assert "43% (300/700 steps)" in shown
    assert "ETA" not in shown
    assert "tokens/s" not in shown


def test_the_page_of_a_run_says_what_there_is_and_leaves_out_what_there_is_not() -> None:
    shown = plain(display.page(training(), NOW))

    assert "Phase:       Training, 43% (300/700 steps), ETA 12m 30s" in shown
    assert "Speed:       4.32k tokens/s" in shown
    assert "Checkpoint:  step-000300" in shown
    assert "Results:     s3://models/lora/zhenhuan" in shown
    assert not [line for line in shown if line.startswith(("Why:", "Hint:", "Ended:"))]


def test_the_page_of_a_failed_run_says_why_and_what_to_do_and_names_its_pods() -> None:
    shown = plain(display.page(failed(), NOW))

    assert "Why:        data: no row has an answer" in shown
    assert "Hint:       look at the columns" in shown
    assert "Attempt:    1 of 4" in shown
    assert shown[-1].split(maxsplit=4)[:2] == ["zhenhuan-0-vpghk", "Failed"]


def test_the_age_of_a_pod_is_its_own() -> None:
    """Not the time since its end."""
    pods = [failed_pod(code=11, ended=590)]
    run = from_objects(job({"failed": 1, "ready": 0, "startTime": at(0)}), pods, (), NOW)

    assert plain(display.page(run, NOW))[-1].split()[4] == tables.age(BEGAN + timedelta(seconds=3), NOW)


def test_the_number_of_an_attempt_in_the_log_is_shown_where_it_is_another() -> None:
    later = dataclasses.replace(training(), progress=dataclasses.replace(progress(), attempt=5))

    assert [line for line in plain(display.page(later, NOW)) if line.startswith("Attempt:")] == [
        "Attempt:     1 of 4 (number 5 in the log: `lorajob logs zhenhuan --attempt 5`)"
    ]
    assert [line for line in plain(display.page(training(), NOW)) if line.startswith("Attempt:")] == [
        "Attempt:     1 of 4"
    ]


def test_a_change_is_one_line() -> None:
    assert display.line(training()) == "zhenhuan: Training, 43% (300/700 steps), ETA 12m 30s, loss 1.2500"
    assert display.line(failed()) == "zhenhuan: Failed: data: no row has an answer"


def test_a_line_that_says_what_the_last_one_did_is_left_out() -> None:
    written: list[str] = []
    lines = live.Lines(written.extend)
    later = dataclasses.replace(training(), attempts=2)

    for status in (training(), later, training(), failed(), failed(), training()):
        lines.show(status, BEGAN)

    assert [line.split()[2].rstrip(",:") for line in written] == ["Training", "Failed", "Training"]
    assert written[0].startswith("09:00:00 zhenhuan: ")


def test_a_dataset_has_its_own_name_wherever_it_was_put() -> None:
    def shown(source: str | None) -> list[str]:
        page = plain(display.page(dataclasses.replace(training(), data=source), NOW))
        return [line.split()[1] for line in page if line.startswith("Data:")]

    assert shown("/etc/lorajob/data/poems.json.gz") == ["poems.json"]
    assert shown("/etc/lorajob/data/poems.json") == ["poems.json"]
    assert shown("s3://models/lora/.data/0123abcd/poems.csv") == ["poems.csv"]
    assert shown("s3://models/poems.json") == ["s3://models/poems.json"]
    assert shown(None) == []


def test_what_is_too_long_loses_its_middle() -> None:
    text = "failed to pull image: " + "the way there " * 30 + "no such host"

    assert tables.shortened(text, 60).startswith("failed to pull imag…")
    assert tables.shortened(text, 60).endswith("the way there no such host")
    assert tables.width(tables.shortened(text, 60)) <= 60
    assert tables.width(tables.shortened("甄嬛" * 50, 21)) <= 21
    assert tables.shortened("short", 5) == "short"


def test_the_live_block_is_written_over_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "8")
    written: list[str] = []
    block = live.Block(written.append)

    block.show(failed(), NOW)
    block.show(dataclasses.replace(failed(), reason="x" * 200), NOW)

    first, second = written
    height = len(first.splitlines())
    assert height == 7
    assert second.startswith(f"\x1b[{height}F\x1b[J")
    assert all(tables.width(line) < 40 for line in click.unstyle(first).splitlines())
