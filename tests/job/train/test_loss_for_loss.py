"""Padding-free, folded, balanced and fused: step by step the loss is that of transformers.Trainer, padded and plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import ForkedRanks
from training_runs import random_rows, steps_of, write_run

import families
from family_models import FamilyModels
from lorajob_runtime.contract.layout import RunFolder


def losses_of_trainer(ranks: ForkedRanks, folder: RunFolder, processes: int = 1) -> dict[str, list[float]]:
    output = folder.root / "reference.json"
    ranks.run("reference_trainer", [str(folder.root), str(output)], processes=processes)
    values: dict[str, list[float]] = json.loads(output.read_text())
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
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path, processes: int, train: dict[str, Any]
) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(260), {"train": train | {"maxSteps": 20}})

    ranks.train(folder, processes=processes)

    assert_same_training(folder, losses_of_trainer(ranks, folder, processes))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_trains_as_transformers_trainer_with_pefts_own_experts(
    ranks: ForkedRanks, tmp_path: Path, family_models: FamilyModels, family: str
) -> None:
    train = {"batchSize": 2, "gradientAccumulation": 2, "learningRate": 5e-3, "maxSteps": 20}
    folder = write_run(tmp_path, family_models.folder(family), random_rows(90), {"train": train})

    ranks.train(folder)

    assert_same_training(folder, losses_of_trainer(ranks, folder))
