"""Sharded weights train as whole ones do, on every family and number of processes, and no rank holds them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from training_runs import random_rows, run_program, run_training, steps_of, write_run

from families import FAMILIES, tiny
from lorajob_runtime import events
from lorajob_runtime.layout import RunFolder
from lorajob_runtime.train import sharding

GLOBAL_BATCH = 8
PROGRAMS = Path(__file__).parent / "programs"
ROWS, HELD_OUT = random_rows(30), random_rows(5, seed=2)


def settings(processes: int, **train: object) -> dict[str, Any]:
    """The same global batch on any number of processes, and rates at which a difference would grow."""
    same = {"batchSize": 1, "gradientAccumulation": GLOBAL_BATCH // processes, "learningRate": 1e-2}
    return {"train": same | {"maxSteps": 6, "saveSteps": 3} | train}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: tiny(family, root / family) for family in FAMILIES}


def train_all(models: dict[str, Path], root: Path, processes: int, **train: object) -> dict[str, RunFolder]:
    """A run of every family, all in the same processes."""
    folders = {
        family: write_run(root / family, model, ROWS, settings(processes, **train), eval_rows=HELD_OUT)
        for family, model in models.items()
    }
    roots = [str(folder.root) for folder in folders.values()]
    assert run_program(PROGRAMS / "train_many.py", roots, processes=processes) == 0
    return folders


@pytest.fixture(scope="module")
def alone(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """The runs of one process that the others are compared with."""
    return train_all(models, tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def sharded_over_two(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    return train_all(models, tmp_path_factory.mktemp("two"), 2, sharding="fsdp")


def losses(folder: RunFolder, kind: str = "step") -> list[float]:
    return [event["loss"] for event in events.read(folder.events) if event["event"] == kind]


def decided(folder: RunFolder) -> events.Event:
    found = [event for event in events.read(folder.events) if event["event"] == "report"]
    return next(event for event in reversed(found) if event["name"] == "decided")


def assert_same_losses(runs: dict[str, RunFolder], references: dict[str, RunFolder]) -> None:
    for family, run in runs.items():
        for kind in ("step", "evaluation"):
            assert losses(run, kind) == pytest.approx(losses(references[family], kind), abs=1e-5), (family, kind)
            assert losses(run, kind)


@pytest.mark.slow
def test_sharded_over_two_processes_all_families_have_the_losses_of_one(
    alone: dict[str, RunFolder], sharded_over_two: dict[str, RunFolder]
) -> None:
    assert all(decided(run)["sharded"] for run in sharded_over_two.values())
    assert_same_losses(sharded_over_two, alone)


@pytest.mark.slow
def test_sharded_over_four_processes_all_families_have_the_losses_of_one(
    models: dict[str, Path], alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = train_all(models, tmp_path, 4, sharding="fsdp")

    assert all(decided(run)["sharded"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_whole_on_two_processes_all_families_have_the_losses_of_one(
    models: dict[str, Path], alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = train_all(models, tmp_path, 2, sharding="ddp")

    assert not any(decided(run)["sharded"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_made_again_instead_of_kept_activations_give_the_same_losses_where_weights_are_gathered(
    models: dict[str, Path], alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = train_all(models, tmp_path, 2, sharding="fsdp", gradientCheckpointing=True)

    assert all(decided(run)["gradient_checkpointing"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 4])
def test_a_sharded_run_goes_on_over_another_number_of_processes(
    models: dict[str, Path], sharded_over_two: dict[str, RunFolder], tmp_path: Path, processes: int
) -> None:
    whole = sharded_over_two["glm-4.5"]
    begun = shutil.copytree(whole.root, tmp_path / "run")
    events.cut_back(RunFolder(begun).events, 3)
    again = write_run(begun, models["glm-4.5"], ROWS, settings(2, sharding="fsdp"), resume_step=3, attempt=2)

    assert run_training(again, processes=processes) == 0

    assert [step["tokens"] for step in steps_of(again)] == [step["tokens"] for step in steps_of(whole)]
    assert losses(again) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_ranks_without_a_row_of_their_own_still_take_part(models: dict[str, Path], tmp_path: Path) -> None:
    asked = settings(4, sharding="fsdp", gradientAccumulation=1, maxSteps=3)
    folder = write_run(tmp_path, models["minimax-m2"], random_rows(5), asked, eval_rows=random_rows(1, seed=2))

    assert run_training(folder, processes=4) == 0

    assert [step["step"] for step in steps_of(folder)] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["glm-4.5", "minimax-m2"])
def test_no_rank_ever_holds_the_whole_model_and_all_have_the_stored_buffers(family: str, tmp_path: Path) -> None:
    experts = {"glm-4.5": "n_routed_experts", "minimax-m2": "num_local_experts"}[family]
    inner = {"glm-4.5": "moe_intermediate_size", "minimax-m2": "intermediate_size"}[family]
    model = tiny(family, tmp_path / "model", **{experts: 64, inner: 256, "hidden_size": 256, "num_hidden_layers": 4})

    assert run_program(PROGRAMS / "load_sharded.py", [str(model), str(tmp_path)], processes=4) == 0

    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(4)]
    total = ranks[0]["all_bytes"]
    assert all(rank["local_bytes"] < total / 4 + 2**16 for rank in ranks)
    assert all(rank["peak_bytes"] < total / 2 for rank in ranks), "a part and what passes through, not the whole"
    assert ranks[0]["count"] > 0
    assert {rank["buffers"] for rank in ranks} == {ranks[0]["stored_buffers"]}


def test_ranks_are_shared_out_over_replicas_that_divide_them() -> None:
    def over(ranks: int, replicas: int) -> tuple[int, int]:
        spread = sharding.over(ranks, sharded=True, replicas=replicas)
        return spread.shards, spread.replicas

    assert over(8, 1) == (8, 1)
    assert over(8, 2) == (4, 2)
    assert over(8, 3) == (8, 1)
    assert over(2, 2) == (2, 1)
    assert over(1, 1) == (1, 1)
    assert not sharding.over(8, sharded=False, replicas=1).is_sharded
