"""Lines of logs: which are wanted, whose they are, in what order. By values."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lorajob.logs import log_lines
from lorajob.logs.log_lines import Line, LogFilter
from lorajob.runs.pod_status import PodStatus

KEYS = [
    "logs/attempt-1/launcher.log.gz",
    "logs/attempt-1/rank-0.log.gz",
    "logs/attempt-1/rank-10.log.gz",
    "logs/attempt-1/rank-2.log.gz",
    "logs/attempt-1/supervisor-1.log.gz",
    "logs/attempt-1/supervisor.log.gz",
    "logs/attempt-10/rank-0.log.gz",
    "logs/attempt-2/rank-0.log.gz",
    "logs/attempt-2/other.txt",
]


def _line(text: str, time: str = "2026-11-21T09:00:00.000000000Z") -> Line:
    return Line(time=time, text=text)


def _pod(name: str, node: int, started: int | None) -> PodStatus:
    return PodStatus(
        name=name,
        node=node,
        state="Running" if started is not None else "Waiting",
        reason="",
        host=None,
        started=None if started is None else datetime.fromtimestamp(started, UTC),
        finished=None,
        exit_code=None,
        termination_message=None,
    )


def test_a_line_of_the_api_is_a_time_and_a_text() -> None:
    line = log_lines.read_line("2026-11-21T09:00:00.123456789Z [rank 1] loss 2.5 甄".encode())

    assert line == Line(time="2026-11-21T09:00:00.123456789Z", text="[rank 1] loss 2.5 甄")
    assert line.moment == pytest.approx(1795251600.123456)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_whole_wherever_the_text_is_cut(size: int) -> None:
    text = "甄嬛传\n\nstep 1\n\U0001f600 and more\nno end".encode() + b"\xe7"
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]

    assert list(log_lines.lines_of(pieces)) == ["甄嬛传", "step 1", "\U0001f600 and more", "no end\ufffd"]
    assert list(log_lines.lines_of([])) == []


def test_without_a_choice_every_line_is_shown_as_it_is() -> None:
    assert LogFilter().text(_line("phase train"), 0) == "phase train"
    assert LogFilter(gpus=2).text(_line("[rank 1] step 1"), 0) == "[rank 1] step 1"


def test_one_rank_is_shown_without_its_mark_and_without_the_others() -> None:
    wanted = LogFilter(rank=1, gpus=2)

    assert wanted.text(_line("[rank 1] step 1"), 0) == "step 1"
    assert wanted.text(_line("[rank 10] step 1"), 0) is None
    assert wanted.text(_line("[rank 0] step 1"), 0) is None
    assert wanted.text(_line("phase train"), 0) is None


def test_supervisors_of_several_nodes_are_told_apart() -> None:
    assert LogFilter(nodes=2).text(_line("waiting"), 1) == "[node 1] waiting"
    assert LogFilter(nodes=2).text(_line("[rank 3] step 1"), 1) == "[rank 3] step 1"
    assert LogFilter(nodes=2, node=1).text(_line("waiting"), 1) == "waiting"


def test_times_are_shown_when_asked_for() -> None:
    assert LogFilter(timestamps=True).text(_line("a"), 0) == "2026-11-21T09:00:00.000000000Z a"


@pytest.mark.parametrize(
    ("wanted", "nodes"),
    [
        (LogFilter(gpus=4, nodes=3), [0, 1, 2]),
        (LogFilter(gpus=4, nodes=3, rank=5), [1]),
        (LogFilter(gpus=4, nodes=3, node=2), [2]),
        (LogFilter(gpus=4, nodes=3, node=2, rank=5), []),
    ],
)
def test_a_rank_is_looked_for_on_its_node_only(wanted: LogFilter, nodes: list[int]) -> None:
    assert [node for node in range(3) if wanted.has_node(node)] == nodes


def test_lines_of_several_nodes_come_in_the_order_of_their_times() -> None:
    def at(second: float, text: str, zone: str = "Z") -> Line:
        return _line(text, f"2026-11-21T09:00:{second:012.9f}{zone}")

    first = [at(1, "a"), at(3, "c"), _line("no time", "broken"), at(5, "f")]
    second = [at(2, "b"), at(4, "e"), _line("g", "2026-11-21T17:00:06.000000000+08:00")]

    order = [line.text for _, line in log_lines.merged({0: first, 1: second})]

    assert order == ["a", "b", "c", "no time", "e", "f", "g"]


def test_the_newest_pod_of_each_node_that_has_begun_is_read() -> None:
    pods = [_pod("a-0-old", 0, 10), _pod("a-0-new", 0, 20), _pod("a-1-old", 1, 10), _pod("a-1-new", 1, None)]

    assert {node: pod.name for node, pod in log_lines.pods_of_attempt(pods).items()} == {0: "a-0-new", 1: "a-1-old"}
    assert {node: pod.name for node, pod in log_lines.pods_of_attempt(pods, ago=1).items()} == {0: "a-0-old"}


def test_attempts_in_storage_are_counted_by_their_numbers() -> None:
    assert log_lines.attempts(KEYS) == [1, 2, 10]


def test_files_of_an_attempt_come_with_the_supervisors_first_and_ranks_by_number() -> None:
    assert log_lines.stored(KEYS, 1, LogFilter(gpus=8, nodes=2)) == [
        ("logs/attempt-1/supervisor.log.gz", "[node 0] "),
        ("logs/attempt-1/supervisor-1.log.gz", "[node 1] "),
        ("logs/attempt-1/launcher.log.gz", "[node 0] [launcher] "),
        ("logs/attempt-1/rank-0.log.gz", "[rank 0] "),
        ("logs/attempt-1/rank-2.log.gz", "[rank 2] "),
        ("logs/attempt-1/rank-10.log.gz", "[rank 10] "),
    ]


def test_files_of_one_rank_or_node_are_found_by_it() -> None:
    assert log_lines.stored(KEYS, 1, LogFilter(gpus=8, nodes=2, rank=10)) == [("logs/attempt-1/rank-10.log.gz", "")]
    assert [key for key, _ in log_lines.stored(KEYS, 1, LogFilter(gpus=8, nodes=2, node=1))] == [
        "logs/attempt-1/supervisor-1.log.gz",
        "logs/attempt-1/rank-10.log.gz",
    ]
