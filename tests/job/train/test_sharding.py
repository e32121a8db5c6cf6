"""Sharded weights train as whole ones do, on every family and number of processes, and no rank holds them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import ForkedRanks
from training_runs import random_rows, run_nodes, steps_of, write_run

from families import FAMILIES, LAYERS, tiny
from family_models import FamilyModels
from lorajob_runtime.contract import events, layout
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import event_log
from lorajob_runtime.train.parallel import sharding

GLOBAL_BATCH = 8
ROWS, HELD_OUT = random_rows(30), random_rows(5, seed=2)
OVER_NODES = ("qwen3", "glm-4.5", "minimax-m2")
"""Dense, and experts with and without shared ones: how nodes work together is the same for all."""


def settings(ranks: int, **train: object) -> dict[str, Any]:
    """The same global batch on any number of ranks, and rates at which a difference would grow."""
    same = {"batchSize": 1, "gradientAccumulation": GLOBAL_BATCH // ranks, "learningRate": 1e-2}
    return {"train": same | {"maxSteps": 6, "saveSteps": 3} | train}


@pytest.fixture(scope="module")
def models(family_models: FamilyModels) -> dict[str, Path]:
    return {family: family_models.folder(family) for family in FAMILIES}


class Trainer:
    """Trains families, all in the same processes."""

    def __init__(self, models: dict[str, Path], ranks: ForkedRanks) -> None:
        self._models = models
        self._ranks = ranks

    def train(
        self,
        root: Path,
        processes: int,
        *,
        nodes: int = 1,
        families: tuple[str, ...] = FAMILIES,
        **train: object,
    ) -> dict[str, RunFolder]:
        """A run of every family, on each of so many nodes; returns their folders on the first node."""
        asked = settings(processes * nodes, **train)
        folders = [
            {
                family: write_run(root / f"node-{node}" / family, self._models[family], ROWS, asked, eval_rows=HELD_OUT)
                for family in families
            }
            for node in range(nodes)
        ]
        for folder in [folder for others in folders[1:] for folder in others.values()]:
            # the others are sent theirs
            shutil.rmtree(folder.data)
        roots = [[str(folder.root) for folder in here.values()] for here in folders]
        self._ranks.run("train_many", *roots, processes=processes)
        return folders[0]

    def go_on(self, begun: RunFolder, root: Path, family: str, processes: int, **train: object) -> RunFolder:
        """Trains a copy of a run again from its step 3, on this number of processes."""
        folder = RunFolder(shutil.copytree(begun.root, root))
        event_log.cut_back(folder.events, 3)
        again = write_run(root, self._models[family], ROWS, settings(2, **train), resume_step=3, attempt=2)
        self._ranks.train(again, processes=processes)
        return again


@pytest.fixture(scope="module")
def trainer(models: dict[str, Path], ranks: ForkedRanks) -> Trainer:
    return Trainer(models, ranks)


@pytest.fixture(scope="module")
def alone(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """The runs of one process that the others are compared with."""
    return trainer.train(tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def sharded_over_two(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    return trainer.train(tmp_path_factory.mktemp("two"), 2, sharding="fsdp")


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
    trainer: Trainer, alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = trainer.train(tmp_path, 4, sharding="fsdp")

    assert all(decided(run)["sharded"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_whole_on_two_processes_all_families_have_the_losses_of_one(
    trainer: Trainer, alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = trainer.train(tmp_path, 2, sharding="ddp")

    assert not any(decided(run)["sharded"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_made_again_instead_of_kept_activations_give_the_same_losses_where_weights_are_gathered(
    trainer: Trainer, alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = trainer.train(tmp_path, 2, sharding="fsdp", gradientCheckpointing=True)

    assert all(decided(run)["gradient_checkpointing"] for run in runs.values())
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_sharded_within_each_of_two_nodes_families_have_the_losses_of_one_process(
    trainer: Trainer, alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    runs = trainer.train(tmp_path, 2, nodes=2, families=OVER_NODES, sharding="fsdp")

    for run in runs.values():
        assert (decided(run)["world_size"], decided(run)["sharded"], decided(run)["replicas"]) == (4, True, 2)
    assert_same_losses(runs, alone)


@pytest.mark.slow
def test_sharded_over_two_nodes_that_torchrun_brings_together_training_has_the_losses_of_one_process(
    models: dict[str, Path], alone: dict[str, RunFolder], tmp_path: Path
) -> None:
    asked = settings(2, sharding="fsdp")
    folders = [
        write_run(tmp_path / f"node-{node}", models["glm-4.5"], ROWS, asked, eval_rows=HELD_OUT) for node in range(2)
    ]
    shutil.rmtree(folders[1].data)

    assert run_nodes(folders) == [0, 0]

    assert (decided(folders[0])["sharded"], decided(folders[0])["replicas"]) == (True, 1)
    assert_same_losses({"glm-4.5": folders[0]}, alone)
    assert not folders[1].events.exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 4])
def test_a_sharded_run_goes_on_over_another_number_of_processes(
    trainer: Trainer, sharded_over_two: dict[str, RunFolder], tmp_path: Path, processes: int
) -> None:
    whole = sharded_over_two["glm-4.5"]

    again = trainer.go_on(whole, tmp_path / "run", "glm-4.5", processes, sharding="fsdp")

    assert decided(again)["processes"] == processes
    assert [step["tokens"] for step in steps_of(again)] == [step["tokens"] for step in steps_of(whole)]
    assert losses(again) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_whole_weights_on_more_processes(
    trainer: Trainer, sharded_over_two: dict[str, RunFolder], tmp_path: Path
) -> None:
    whole = sharded_over_two["minimax-m2"]

    again = trainer.go_on(whole, tmp_path / "run", "minimax-m2", 4, sharding="ddp")

    assert [step["tokens"] for step in steps_of(again)] == [step["tokens"] for step in steps_of(whole)]
    assert losses(again) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_a_sharded_run_that_goes_on_as_it_was_ends_with_the_same_bytes(
    trainer: Trainer, sharded_over_two: dict[str, RunFolder], tmp_path: Path
) -> None:
    whole = sharded_over_two["hunyuan"]

    again = trainer.go_on(whole, tmp_path / "run", "hunyuan", 2, sharding="fsdp")

    for file in (layout.ADAPTER_WEIGHTS, layout.OPTIMIZER):
        assert (again.checkpoint(6) / file).read_bytes() == (whole.checkpoint(6) / file).read_bytes()
    assert losses(again) == losses(whole)


@pytest.mark.slow
def test_ranks_without_a_row_of_their_own_still_take_part(
    ranks: ForkedRanks, models: dict[str, Path], tmp_path: Path
) -> None:
    asked = settings(4, sharding="fsdp", gradientAccumulation=1, maxSteps=3)
    folder = write_run(tmp_path, models["minimax-m2"], random_rows(5), asked, eval_rows=random_rows(1, seed=2))

    ranks.train(folder, processes=4)

    assert [step["step"] for step in steps_of(folder)] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["glm-4.5", "minimax-m2"])
def test_no_rank_ever_holds_the_whole_model_and_all_have_the_stored_buffers(
    ranks: ForkedRanks, family: str, tmp_path: Path
) -> None:
    experts = {"glm-4.5": "n_routed_experts", "minimax-m2": "num_local_experts"}[family]
    inner = {"glm-4.5": "moe_intermediate_size", "minimax-m2": "intermediate_size"}[family]
    model = tiny(family, tmp_path / "model", **{experts: 64, inner: 256, "hidden_size": 256, "num_hidden_layers": 4})

    ranks.run("load_sharded", [str(model), str(tmp_path)], processes=4)

    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(4)]
    total = found[0]["all_bytes"]
    assert all(rank["local_bytes"] < total / 4 + 2**16 for rank in found)
    assert all(rank["peak_bytes"] < total / 2 for rank in found), "a part and what passes through, not the whole"
    assert found[0]["count"] > 0
    assert {rank["buffers"] for rank in found} == {found[0]["stored_buffers"]}


@pytest.mark.slow
def test_answers_gather_a_layer_once_where_it_may_stay_whole_and_for_every_token_where_not(
    ranks: ForkedRanks, models: dict[str, Path], tmp_path: Path
) -> None:
    ranks.run("answer_sharded", [str(models["glm-4.5"]), str(tmp_path)], processes=2)

    for rank in range(2):
        none, one, every = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert (none["kept"], one["kept"], every["kept"]) == (0, 1, LAYERS)
        assert none["tokens"] == one["tokens"] == every["tokens"]
        assert none["held_bytes"] == one["held_bytes"] == every["held_bytes"]
        tokens = 8
        assert none["gathers"] - one["gathers"] == tokens - 1
        assert none["gathers"] - every["gathers"] == LAYERS * (tokens - 1)


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
