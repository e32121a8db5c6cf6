"""Kills a process at every point of writing a checkpoint beside training, and looks at what is left; argument: FOLDER.

A point is whatever Python's audit hooks see of files: one that is opened (to be written, or to be flushed to the disk),
given another name or removed, a folder that is made. Nothing else in the process takes part: SIGKILL ends it all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import events
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import checkpointing, session
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train.step import train_step

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile")


def main(arguments: list[str]) -> None:
    folder = RunFolder(Path(arguments[0]))
    job = train_job.loads(folder.train_job.read_text())
    run = session.start(job, folder, session.join_process_group(job))
    train_step(run, 1)
    with checkpointing.Writer(run) as checkpoints:
        checkpoints.save(1, evaluation_pending=False)
    log = folder.events.read_bytes()
    points = 0
    while not _is_saved(run, killed_at=points + 1):
        points += 1
        _look(folder)
        folder.events.write_bytes(log)
        checkpoint.remove_drafts(folder)
    assert points > 30, points
    assert checkpoint.steps(folder) == [1, 2]
    assert checkpoint.verify(folder.checkpoint(2))
    assert _in_log(folder) == [1, 2]


def _is_saved(run: session.Session, *, killed_at: int) -> bool:
    """Writes the checkpoint of step 2 in a process that is killed at one of the points. False: it was."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, _: Any) -> None:
            nonlocal seen
            if event in _EVENTS and threading.current_thread().name == "checkpoint":
                seen += 1
                if seen == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        with checkpointing.Writer(run) as checkpoints:
            checkpoints.save(2, evaluation_pending=False)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def _look(folder: RunFolder) -> None:
    """What is there is whole or a draft, and the log names nothing that is not whole."""
    steps = checkpoint.steps(folder)
    assert steps in ([1], [1, 2]), steps
    assert all(checkpoint.verify(folder.checkpoint(step)) for step in steps)
    others = [path.name for path in folder.checkpoints.iterdir() if path.name.startswith("step-")]
    assert len(others) == len(steps), others
    assert set(_in_log(folder)) <= set(steps)
    if 2 in steps:
        # so that the next one is as this one was before it
        folder.checkpoint(2).rename(folder.checkpoints / ".step-2.old")


def _in_log(folder: RunFolder) -> list[int]:
    return [event["step"] for event in events.read(folder.events) if event["event"] == "checkpoint"]
