"""Ctrl-C, SIGTERM, SIGKILL: what is finished stays, and nothing is left running."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from golden.said import Said
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint


def is_gone(process_id: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def worker_ids(folder: RunFolder, count: int, wait_until) -> list[int]:
    """Process ids of the training processes, once all of them run."""
    files = [folder.work / f"pid-{rank}" for rank in range(count)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files), seconds=40, what="the workers")
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_after_the_step_with_a_checkpoint_in_storage(
    start, tmp_path: Path, number: signal.Signals, wait_until, said: Said
) -> None:
    run = start(str(tmp_path / "runs"), orders={"hold": 3})
    wait_until(lambda: 3 in run.steps(), what="step 3")

    run.process.send_signal(number)

    assert run.wait() == 30
    said("\n".join([*run.remarks("notice"), run.end()["message"]]))
    assert (tmp_path / "runs/n/checkpoints/step-000003/checkpoint.json").exists()
    again = start(str(tmp_path / "runs"))
    assert again.wait() == 0
    assert again.steps() == [1, 2, 3, 4]


def test_a_second_ctrl_c_ends_at_once_and_keeps_finished_checkpoints(
    start, tmp_path: Path, folder: RunFolder, wait_until
) -> None:
    run = start(str(tmp_path / "runs"), orders={"hold": 3, "deaf": True}, limits={"echo": 0})
    [worker] = worker_ids(folder, 1, wait_until)
    wait_until(lambda: 3 in run.steps(), what="step 3")

    run.process.send_signal(signal.SIGINT)
    wait_until(lambda: run.remarks("notice"), what="the notice")
    run.process.send_signal(signal.SIGINT)

    assert run.wait() == 130
    assert run.end()["class"] == "interrupted"
    wait_until(lambda: is_gone(worker), what="the worker's end")
    assert checkpoint.steps(folder) == [2]


def test_the_echo_of_a_ctrl_c_is_not_a_second_one(start, tmp_path: Path, wait_until) -> None:
    run = start(str(tmp_path / "runs"), orders={"hold": 3})
    wait_until(lambda: 3 in run.steps(), what="step 3")

    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)

    assert run.wait() == 30


def test_a_signal_while_the_model_is_fetched_stops_promptly(start, tmp_path: Path, wait_until) -> None:
    run = start(str(tmp_path / "runs"), spec={"model": {"name": "endless"}})
    wait_until(lambda: any(event["event"] == "phase" for event in run.events()), what="the fetch phase")

    run.process.send_signal(signal.SIGTERM)

    # less than the model would take
    assert run.wait(50) == 30
    assert run.end()["message"] == "stopped before the first step of training"


@pytest.mark.parametrize("processes", [1, 2])
def test_the_workers_die_with_a_supervisor_that_is_killed(
    start, tmp_path: Path, folder: RunFolder, processes: int, wait_until
) -> None:
    run = start(str(tmp_path / "runs"), processes=processes, orders={"hold": 3, "deaf": True})
    workers = worker_ids(folder, processes, wait_until)

    os.kill(run.process.pid, signal.SIGKILL)

    wait_until(lambda: all(is_gone(worker) for worker in workers), what="the workers' end")


def test_a_killed_run_goes_on_and_its_stale_lock_is_taken_over(
    start, tmp_path: Path, folder: RunFolder, wait_until
) -> None:
    first = start(str(tmp_path / "runs"), orders={"hold": 3})
    wait_until(lambda: 3 in first.steps(), what="step 3")
    first.process.kill()
    first.process.wait()
    assert folder.lock.read_text()

    second = start(str(tmp_path / "runs"))

    assert second.wait() == 0
    assert second.steps() == [1, 2, 3, 4]
    assert (tmp_path / "runs/n/logs/attempt-1/rank-0.log.gz").exists()


def test_a_second_run_of_the_same_name_is_refused_and_told_who_works_on_it(start, tmp_path: Path, wait_until) -> None:
    first = start(str(tmp_path / "runs"), orders={"hold": 3})
    wait_until(lambda: 3 in first.steps(), what="step 3")

    second = start(str(tmp_path / "runs"))

    assert second.wait() == 10
    assert f"process {first.process.pid} on " in second.end()["message"]
