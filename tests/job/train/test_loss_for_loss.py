"""Padding-free, folded, balanced and fused: step by step the loss is that of transformers.Trainer, padded and plain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training_runs import random_rows, run_training, steps_of, write_run

import families
from family_models import FamilyModels
from lorajob_runtime.layout import RunFolder

REFERENCE = Path(__file__).with_name("reference_trainer.py")


def start_reference(folder: RunFolder, processes: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*command, str(REFERENCE), str(folder.root), str(folder.root / "reference.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_reference(folder: RunFolder, process: subprocess.Popen[str]) -> dict[str, list[float]]:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-2000:]
    values: dict[str, list[float]] = json.loads((folder.root / "reference.json").read_text())
    return values


def assert_same_training(folder: RunFolder, expected: dict[str, list[float]]) -> None:
    ours = steps_of(folder)
    assert [step["loss"] for step in ours] == pytest.approx(expected["losses"], rel=1e-4)
    assert [step["grad_norm"] for step in ours] == pytest.approx(expected["norms"], rel=1e-3)
    assert ours[-1]["loss"] != pytest.approx(ours[0]["loss"], rel=1e-2), "nothing was learned, so nothing was compared"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "train",
    [
        {"batchSize": 2, "gradientAccumulation": 3, "learningRate": 1e-2},
        {"batchSize": 4, "gradientAccumulation": 1, "learningRate": 3e-3, "scheduler": "cosine", "maxGradNorm": 0.05},
    ],
    ids=["accumulated-linear", "clipped-cosine"],
)
def test_each_of_20_steps_has_the_loss_that_transformers_trainer_gives(
    tmp_path: Path, tiny_model: Path, processes: int, train: dict[str, Any]
) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(260), {"train": train | {"maxSteps": 20}})

    assert run_training(folder, processes=processes) == 0

    assert_same_training(folder, end_reference(folder, start_reference(folder, processes)))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_trains_as_transformers_trainer_with_pefts_own_experts(
    tmp_path: Path, family_models: FamilyModels, family: str
) -> None:
    train = {"batchSize": 2, "gradientAccumulation": 2, "learningRate": 5e-3, "maxSteps": 20}
    folder = write_run(tmp_path, family_models.folder(family), random_rows(90), {"train": train})
    process = start_reference(folder)

    assert run_training(folder) == 0

    assert_same_training(folder, end_reference(folder, process))
