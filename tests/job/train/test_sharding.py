"""Sharded weights train as whole ones do, on every family and number of processes, and no rank holds them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import random_rows, run_program, run_training, steps_of, write_run

from families import FAMILIES, tiny
from lorajob_runtime import events
from lorajob_runtime.layout import RunFolder
from lorajob_runtime.train import sharding

GLOBAL_BATCH = 8
PROGRAMS = Path(__file__).parent / "programs"


def settings(processes: int, **train: object) -> dict[str, object]:
    """The same global batch on any number of processes, and rates at which a difference would grow."""
    same = {"batchSize": 1, "gradientAccumulation": GLOBAL_BATCH // processes, "learningRate": 1e-2}
    return {"train": same | {"maxSteps": 6, "saveSteps": 3} | train}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny(request.param, tmp_path_factory.mktemp(request.param) / "model")
    return folder


@pytest.fixture(scope="module")
def alone(model: Path) -> RunFolder:
    """The run of one process that the others are compared with."""
    folder = write_run(model.parent / "alone", model, random_rows(30), settings(1), eval_rows=random_rows(5, seed=2))
    assert run_training(folder) == 0
    return folder


def losses(folder: RunFolder) -> list[float]:
    return [step["loss"] for step in steps_of(folder)]


def decided(folder: RunFolder) -> dict[str, object]:
    found = [event for event in events.read(folder.events) if event["event"] == "report"]
    return next(event for event in reversed(found) if event["name"] == "decided")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_sharded_losses_are_those_of_one_process(model: Path, alone: RunFolder, tmp_path: Path, processes: int) -> None:
    asked = settings(processes, sharding="fsdp")
    folder = write_run(tmp_path, model, random_rows(30), asked, eval_rows=random_rows(5, seed=2))

    assert run_training(folder, processes=processes) == 0

    assert decided(folder)["sharded"]
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5)
    assert [event["loss"] for event in events.read(folder.events) if event["event"] == "evaluation"] == pytest.approx(
        [event["loss"] for event in events.read(alone.events) if event["event"] == "evaluation"], abs=1e-5
    )


@pytest.mark.slow
def test_whole_weights_on_two_processes_give_the_losses_of_one(model: Path, alone: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path, model, random_rows(30), settings(2, sharding="ddp"))

    assert run_training(folder, processes=2) == 0

    assert not decided(folder)["sharded"]
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.slow
def test_a_sharded_run_goes_on_alone_and_an_unsharded_one_sharded(tmp_path: Path) -> None:
    model = tiny("glm-4.5", tmp_path / "model")
    whole = write_run(tmp_path / "whole", model, random_rows(30), settings(2, sharding="fsdp"))
    assert run_training(whole, processes=2) == 0

    for processes in (1, 4):
        folder = write_run(tmp_path / f"on-{processes}", model, random_rows(30), settings(2, sharding="fsdp"))
        assert run_training(folder, processes=2) == 0
        events.cut_back(folder.events, 3)
        again = write_run(folder.root, model, random_rows(30), settings(2, sharding="fsdp"), resume_step=3, attempt=2)
        assert run_training(again, processes=processes) == 0

        assert [step["tokens"] for step in steps_of(again)] == [step["tokens"] for step in steps_of(whole)]
        assert losses(again) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_ranks_without_a_row_of_their_own_still_take_part(tmp_path: Path) -> None:
    model = tiny("minimax-m2", tmp_path / "model")
    asked = settings(4, sharding="fsdp", gradientAccumulation=1, maxSteps=3)
    folder = write_run(tmp_path / "run", model, random_rows(5), asked, eval_rows=random_rows(1, seed=2))

    assert run_training(folder, processes=4) == 0

    assert [step["step"] for step in steps_of(folder)] == [1, 2, 3]


@pytest.mark.slow
def test_activations_made_again_give_the_same_losses_where_weights_are_gathered(tmp_path: Path) -> None:
    model = tiny("hunyuan", tmp_path / "model")
    kept = write_run(tmp_path / "kept", model, random_rows(30), settings(2, sharding="fsdp"))
    assert run_training(kept, processes=2) == 0
    made = write_run(
        tmp_path / "made", model, random_rows(30), settings(2, sharding="fsdp", gradientCheckpointing=True)
    )
    assert run_training(made, processes=2) == 0

    assert losses(made) == pytest.approx(losses(kept), abs=1e-5)


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
