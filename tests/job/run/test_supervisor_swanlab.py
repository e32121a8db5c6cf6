"""A whole run that reports to SwanLab: one experiment through kills, and trouble that never becomes the run's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.swanlab_server import SwanLabServer, serving
from golden.said import Said

REPORTED = {"report": {"swanlab": {"mode": "cloud"}}, "train": {"loggingSteps": 1}}


@pytest.fixture
def server() -> Iterator[SwanLabServer]:
    with serving() as running:
        yield running


def test_a_killed_run_goes_on_with_its_experiment_and_no_step_comes_twice(
    start, tmp_path: Path, server: SwanLabServer, wait_until
) -> None:
    def logged() -> list[int]:
        return sorted(step for run in server.experiments.values() for step in run.series("train/loss"))

    uri, variables = str(tmp_path / "runs"), server.variables()
    killed = start(uri, orders={"hold": 4}, spec=REPORTED, variables=variables)
    wait_until(lambda: logged() == [1, 2, 3, 4], seconds=40, what="step 4 at the server")
    killed.process.kill()
    killed.wait()

    assert start(uri, orders={"total": 6}, spec=REPORTED, variables=variables, limits={"sinks_at_end": 20}).wait() == 0

    assert server.only_experiment().starts == 2
    assert server.only_experiment().twice() == []
    assert logged() == [1, 2, 3, 4, 5, 6]
    assert server.only_experiment().states == ["FINISHED"]


def test_a_host_that_no_longer_answers_at_the_end_is_warned_of_and_the_run_keeps_its_exit_code(
    start, tmp_path: Path, server: SwanLabServer, wait_until
) -> None:
    run = start(str(tmp_path / "runs"), orders={"hold": 3}, spec=REPORTED, variables=server.variables())
    wait_until(lambda: any("SwanLab" in notice for notice in run.remarks("notice")), seconds=40, what="the login")
    server.fault = "hang"
    run.process.terminate()

    assert run.wait() == 30
    (warning,) = run.remarks("warning")
    assert warning.startswith("SwanLab did not take the last values in time; to send them: swanlab sync ")


def test_without_a_key_there_is_one_warning_and_the_run_succeeds(start, tmp_path: Path, said: Said) -> None:
    spec = REPORTED | {"report": {"swanlab": {"mode": "auto"}}}
    run = start(str(tmp_path / "runs"), spec=spec, limits={"sinks_at_end": 20})

    assert run.wait() == 0
    (warning,) = run.remarks("warning")
    said(warning.partition("swanlab sync")[0])
