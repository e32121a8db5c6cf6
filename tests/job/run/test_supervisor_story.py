"""A run from start to end, in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lorajob_runtime.contract import events as event_logs
from lorajob_runtime.contract.layout import RunFolder


def test_a_run_goes_through_its_phases_and_leaves_all_in_storage(start, tmp_path: Path) -> None:
    run = start(str(tmp_path / "runs"))

    assert run.wait() == 0, run.stderr()

    result = tmp_path / "runs/n"
    assert [event["name"] for event in run.events() if event["event"] == "phase"] == [
        "fetch", "data", "train", "publish",
    ]  # fmt: skip
    assert run.steps() == [1, 2, 3, 4]
    assert run.end()["class"] == "succeeded"
    assert str(result / "adapter") in run.end()["message"]
    assert (result / "adapter/adapter_model.safetensors").read_text() == "adapter of step 4"
    assert (result / "checkpoints/step-000004/checkpoint.json").exists()
    assert json.loads((result / "spec.json").read_text())["name"] == "n"
    assert list(event_logs.read(result / "events.jsonl")) == run.events()
    logs = {path.name for path in (result / "logs/attempt-1").iterdir()}
    assert logs >= {"rank-0.log.gz", "launcher.log.gz"}


def test_a_run_that_is_done_does_nothing_and_says_where_the_adapter_is(start, tmp_path: Path) -> None:
    start(str(tmp_path / "runs")).wait()
    log = (tmp_path / "runs/n/events.jsonl").read_bytes()

    again = start(str(tmp_path / "runs"))

    assert again.wait() == 0
    assert [event["event"] for event in again.events()] == ["end"]
    assert str(tmp_path / "runs/n/adapter") in again.end()["message"]
    assert (tmp_path / "runs/n/events.jsonl").read_bytes() == log


def test_a_run_whose_adapter_was_deleted_is_published_again_without_training(start, tmp_path: Path) -> None:
    start(str(tmp_path / "runs")).wait()
    (tmp_path / "runs/n/adapter/adapter_model.safetensors").unlink()

    again = start(str(tmp_path / "runs"), orders={"failures": [{"rank": 0, "step": 5, "words": "trained"}]})

    assert again.wait() == 0
    assert (tmp_path / "runs/n/adapter/adapter_model.safetensors").exists()
    assert again.steps() == [1, 2, 3, 4]


def test_several_processes_share_the_cores(start, tmp_path: Path, folder: RunFolder) -> None:
    run = start(str(tmp_path / "runs"), processes=2)

    assert run.wait() == 0, run.end()

    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [folder.log(1, rank).read_text() for rank in (0, 1)] == [
        f"rank {rank} of 2, {threads} threads\n" for rank in (0, 1)
    ]


def test_a_run_goes_on_from_its_newest_checkpoint_with_each_step_once_in_the_log(start, tmp_path: Path) -> None:
    failing = {"failures": [{"rank": 0, "step": 4, "class": "diverged", "message": "the loss of step 4 is NaN"}]}
    first = start(str(tmp_path / "runs"), orders={"total": 6, **failing})
    assert first.wait() == 15
    assert first.end()["message"] == "the loss of step 4 is NaN"
    assert first.steps() == [1, 2, 3, 4]

    second = start(str(tmp_path / "runs"), orders={"total": 6})

    assert second.wait() == 0
    assert second.steps() == [1, 2, 3, 4, 5, 6]
    assert "going on from the checkpoint of step 2" in second.remarks("notice")
    assert {path.name for path in (tmp_path / "runs/n/logs").iterdir()} == {"attempt-1", "attempt-2"}


def test_a_changed_spec_is_refused_with_the_differences(start, tmp_path: Path) -> None:
    start(str(tmp_path / "runs")).wait()

    changed = start(str(tmp_path / "runs"), spec={"train": {"learningRate": 0.5}, "lora": {"rank": 16}})

    assert changed.wait() == 10
    assert "lora.rank: 8 -> 16; train.learningRate: 0.0001 -> 0.5" in changed.end()["message"]


def test_a_changed_spec_is_accepted_while_there_is_no_checkpoint(start, tmp_path: Path) -> None:
    failing = {"failures": [{"rank": 0, "step": 1, "class": "model", "message": "no such model"}]}
    assert start(str(tmp_path / "runs"), orders=failing).wait() == 12

    corrected = start(str(tmp_path / "runs"), spec={"lora": {"rank": 16}})

    assert corrected.wait() == 0
    assert json.loads((tmp_path / "runs/n/spec.json").read_text())["lora"]["rank"] == 16


@pytest.mark.parametrize("source", ["missing.json", "/no/such/folder/rows.json"])
def test_a_dataset_that_is_not_there_ends_with_11_before_anything_starts(start, tmp_path: Path, source: str) -> None:
    run = start(str(tmp_path / "runs"), spec={"data": {"source": source}})

    assert run.wait() == 11
    assert repr(source) in run.end()["message"]
    assert not (tmp_path / "runs").exists()


def test_an_error_that_nobody_foresaw_is_one_line_and_its_trace_is_in_the_supervisors_log(
    start, tmp_path: Path, folder: RunFolder
) -> None:
    run = start(str(tmp_path / "runs"), spec={"data": {"format": "text"}})

    assert run.wait() == 1
    assert run.end()["message"] == f"KeyError: 'a fault of ours'; more in {folder.supervisor_log(1)}"
    assert "Traceback" in folder.supervisor_log(1).read_text()
    assert run.stderr() == ""


def test_training_that_shows_no_life_is_ended_with_22(start, tmp_path: Path) -> None:
    run = start(str(tmp_path / "runs"), orders={"hold": 3, "deaf": True}, limits={"stall": 5})

    assert run.wait() == 22
    assert (tmp_path / "runs/n/checkpoints/step-000002/checkpoint.json").exists()


def test_of_several_processes_the_one_that_failed_tells_the_cause(start, tmp_path: Path) -> None:
    failing = {"rank": 1, "step": 3, "class": "out-of-memory", "message": "the GPU's memory was not enough"}
    run = start(str(tmp_path / "runs"), processes=2, orders={"failures": [failing], "seconds": 0.1, "hold": 4})

    assert run.wait() == 14
    assert run.end()["message"] == "the GPU's memory was not enough"


def test_training_that_dies_without_a_cause_is_told_by_the_last_line_of_its_log(start, tmp_path: Path) -> None:
    run = start(str(tmp_path / "runs"), orders={"failures": [{"rank": 0, "step": 1, "words": "ImportError: libfoo"}]})

    assert run.wait() == 1
    message = run.end()["message"]
    assert "exit code 1" in message
    assert "the last line of its log is: rank 0 of 1" in message
