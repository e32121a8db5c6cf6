"""Signs of life while there is nothing to log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from training_runs import ONE_THREAD, QUIET, random_rows, write_run

from lorajob_runtime.contract import events
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.train import heartbeat
from waiting import wait_until


def test_loading_gives_signs_of_life_as_long_as_it_lasts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.work.mkdir()

    with heartbeat.beating(folder, every_seconds=0.01):
        first = folder.alive.stat().st_mtime_ns
        wait_until(lambda: folder.alive.stat().st_mtime_ns > first, what="another sign of life")


def test_every_micro_batch_of_a_long_step_is_a_sign_of_life_and_what_takes_its_time_is_said(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = {"train": {"gradientAccumulation": 16, "maxSteps": 2, "batchSize": 1}}
    # longer than the CPU's token budget together, so that a step is several micro-batches
    rows = random_rows(32, longest=2000)
    folder = write_run(tmp_path, tiny_model, rows, settings, eval_rows=random_rows(3, seed=1))
    program = Path(__file__).parent / "programs/count_beats.py"

    done = subprocess.run(
        [sys.executable, program, str(folder.root)], env=os.environ | ONE_THREAD, **QUIET, timeout=300
    )

    assert done.returncode == 0
    beats = Counter((folder.work / "beats").read_text().split())
    # loading and two evaluations give a few of their own
    assert beats["1"] >= 3
    said = [event["message"] for event in events.read(folder.events) if event.get("name") == "doing"]
    assert said == ["evaluates before training", "makes step 1", "evaluates after step 2"]
