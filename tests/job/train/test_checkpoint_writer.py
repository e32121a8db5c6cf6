"""Checkpoints are written while training goes on: each is that of its step, whole or not there, and none is lost."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import ForkedRanks
from safetensors.torch import load_file
from training_runs import random_rows, write_run

from lorajob_runtime.contract import events, layout
from lorajob_runtime.contract.errors import DivergedError, StorageError
from lorajob_runtime.storage import checkpoint, event_log
from lorajob_runtime.train import checkpointing, session
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train.host_copies import HostCopies
from lorajob_runtime.train.lora import attach
from lorajob_runtime.train.session import Session
from lorajob_runtime.train.step import train_step

SETTINGS = {"train": {"batchSize": 2, "gradientAccumulation": 1, "maxSteps": 4, "learningRate": 1e-2}}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Session:
    """A session one step in."""
    folder = write_run(tmp_path, tiny_model, random_rows(30), SETTINGS)
    job = train_job.loads(folder.train_job.read_text())
    started = session.start(job, folder, session.join_process_group(job))
    train_step(started, 1)
    return started


class Disk:
    """A disk that takes a checkpoint when it is let, or never."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.error: OSError | None = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    slow, write = Disk(), checkpointing._write

    def written(*given: Any) -> None:
        slow.ready.wait(60)
        write(*given)
        if slow.error is not None:
            raise slow.error

    monkeypatch.setattr(checkpointing, "_write", written)
    yield slow
    slow.ready.set()


def logged(run: Session) -> list[int]:
    return [event["step"] for event in events.read(run.folder.events) if event["event"] == "checkpoint"]


def test_what_training_does_meanwhile_is_not_in_it(run: Session, disk: Disk) -> None:
    adapter = {name: item.clone() for name, item in attach.adapter_state(run.model).items()}
    moments = {name: run.optimizer.state[item]["exp_avg"].clone() for name, item in attach.trained(run.model).items()}

    with checkpointing.Writer(run) as checkpoints:
        checkpoints.save(1, evaluation_pending=False)
        train_step(run, 2)
        train_step(run, 3)
        assert (checkpoint.steps(run.folder), logged(run)) == ([], [])
        disk.ready.set()

    path = run.folder.checkpoint(1)
    saved, optimizer = load_file(path / layout.ADAPTER_WEIGHTS), load_file(path / layout.OPTIMIZER)
    assert checkpoint.verify(path)
    assert logged(run) == [1]
    assert all(torch.equal(saved[name], item) for name, item in adapter.items())
    assert all(torch.equal(optimizer[f"exp_avg/{name}"], item) for name, item in moments.items())
    now = attach.adapter_state(run.model)
    assert any(not torch.equal(saved[name], item) for name, item in now.items())


def test_the_next_one_waits_for_it(run: Session, disk: Disk) -> None:
    with checkpointing.Writer(run) as checkpoints:
        checkpoints.save(1, evaluation_pending=False)
        threading.Timer(0.1, disk.ready.set).start()
        checkpoints.save(2, evaluation_pending=False)
        assert checkpoint.steps(run.folder)[0] == 1

    assert checkpoint.steps(run.folder) == logged(run) == [1, 2]


@pytest.mark.parametrize("seen", ["at the next step", "at the next checkpoint", "at the end"])
def test_a_full_disk_ends_the_run_with_its_own_class(run: Session, disk: Disk, seen: str) -> None:
    disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    checkpoints = checkpointing.Writer(run)
    checkpoints.save(1, evaluation_pending=False)
    checkpoints.raise_failure()
    disk.ready.set()
    assert checkpoints._thread is not None
    checkpoints._thread.join()

    asks: dict[str, Callable[[], None]] = {
        "at the next step": checkpoints.raise_failure,
        "at the next checkpoint": lambda: checkpoints.save(2, evaluation_pending=False),
        "at the end": checkpoints.wait,
    }
    with pytest.raises(StorageError, match="No space left on device"):
        asks[seen]()

    assert (checkpoint.steps(run.folder), logged(run)) == ([], [])
    assert list(run.folder.checkpoints.iterdir()) == []


@pytest.mark.parametrize("full", [False, True])
def test_where_training_fails_too_that_is_the_reason_and_a_checkpoint_that_can_be_is_finished(
    run: Session, disk: Disk, full: bool
) -> None:
    disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else None

    def train() -> None:
        with checkpointing.Writer(run) as checkpoints:
            checkpoints.save(1, evaluation_pending=False)
            threading.Timer(0.1, disk.ready.set).start()
            raise DivergedError("training diverged")

    with pytest.raises(DivergedError):
        train()

    assert checkpoint.steps(run.folder) == ([] if full else [1])


def test_killed_at_any_point_of_it_what_is_there_is_whole_or_a_draft(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(30), SETTINGS)

    ranks.run("killed_while_saving", [str(folder.root)], processes=1)


def test_copies_stay_as_they_were_taken_and_their_memory_is_taken_once() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(()), "c": torch.arange(8.0)[::2]}
    copies = HostCopies(torch.device("cpu"))
    taken = copies.take(tensors)
    before = {name: item.clone() for name, item in tensors.items()}
    tensors["a"].zero_()

    assert all(torch.equal(taken[name], before[name]) for name in tensors)
    assert all(item.is_contiguous() for item in taken.values())
    again = copies.take(tensors)
    assert again["a"].data_ptr() == taken["a"].data_ptr()
    assert not again["a"].any()


def test_a_checkpoint_that_was_logged_after_later_steps_stays_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with events.EventLog(path) as log:
        for event, step in [("step", 1), ("step", 2), ("checkpoint", 1), ("step", 3), ("checkpoint", 2)]:
            log.append(event, step=step)
        log.append("report", name="warning", message="of step 3")

    event_log.cut_back(path, 1)

    assert [(event["event"], event["step"]) for event in events.read(path)] == [("step", 1), ("checkpoint", 1)]
