"""Memory that turns out to be less than it seemed makes micro-batches smaller, and changes no loss."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked_ranks import ForkedRanks
from training_runs import random_rows, steps_of, write_run

from lorajob_runtime.contract import events
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint, event_log
from lorajob_runtime.train import samples
from lorajob_runtime.train.parallel import memory_budget

SETTINGS = {"train": {"batchSize": 8, "gradientAccumulation": 1, "maxSteps": 4, "saveSteps": 1}}
ROWS = random_rows(60, longest=40)
LONGEST = int(ROWS.lengths.max())


def short(ranks: ForkedRanks, folder: RunFolder, processes: int, **what: Any) -> None:
    ranks.run("train_short_of_memory", [str(folder.root), json.dumps(what)], processes=processes)


def budgets(folder: RunFolder) -> list[int]:
    """The token budget in the checkpoint of every step."""
    states = (checkpoint.read_state(folder.checkpoint(step)) for step in checkpoint.steps(folder))
    return [state["decided"]["token_budget"] for state in states]


def warnings(folder: RunFolder) -> list[str]:
    return [event["message"] for event in events.read(folder.events) if event.get("name") == "warning"]


@pytest.mark.parametrize(("processes", "rank"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("evaluates", [False, True])
def test_training_goes_on_at_the_same_step_with_the_same_losses(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path, processes: int, rank: int, evaluates: bool
) -> None:
    held_out = random_rows(20, seed=3, longest=40) if evaluates else None
    plenty = write_run(tmp_path / "plenty", tiny_model, ROWS, SETTINGS, eval_rows=held_out)
    ranks.train(plenty, processes=processes)
    folder = write_run(tmp_path / "short", tiny_model, ROWS, SETTINGS, eval_rows=held_out)

    # two passes look at the model, and the first step is one more
    short(ranks, folder, processes, rank=rank, tokens=60, calls=4)

    assert [step["loss"] for step in steps_of(folder)] == pytest.approx(
        [step["loss"] for step in steps_of(plenty)], rel=1e-6
    )
    assert [step["grad_norm"] for step in steps_of(folder)] == pytest.approx(
        [step["grad_norm"] for step in steps_of(plenty)], rel=1e-5
    )
    assert [step["step"] for step in steps_of(folder)] == [1, 2, 3, 4]
    assert budgets(plenty)[0] == memory_budget.CPU_TOKENS
    assert LONGEST <= budgets(folder)[-1] <= 60
    assert budgets(folder) == sorted(budgets(folder), reverse=True)
    assert "out of memory at" in warnings(folder)[0]


def test_what_was_decided_stays_when_the_run_is_resumed(ranks: ForkedRanks, tmp_path: Path, tiny_model: Path) -> None:
    folder = write_run(tmp_path, tiny_model, ROWS, SETTINGS)
    short(ranks, folder, 1, rank=0, tokens=60, calls=1)
    kept = budgets(folder)[0]

    event_log.cut_back(folder.events, 2)
    ranks.train(write_run(tmp_path, tiny_model, ROWS, SETTINGS, resume_step=2))

    assert budgets(folder) == [kept] * 4


@pytest.mark.parametrize(("asked", "expected"), [(90, 90), (20, 20), (None, 50)])
def test_another_token_budget_may_be_asked_for_when_the_run_is_resumed(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path, asked: int | None, expected: int
) -> None:
    def settings(tokens: int | None) -> dict[str, Any]:
        return {"train": SETTINGS["train"] | {"tokensPerMicroBatch": tokens}}

    plenty = write_run(tmp_path / "plenty", tiny_model, ROWS, SETTINGS)
    folder = write_run(tmp_path / "run", tiny_model, ROWS, settings(50))
    ranks.run("train_many", [str(plenty.root), str(folder.root)], processes=1)
    event_log.cut_back(folder.events, 2)

    ranks.train(write_run(tmp_path / "run", tiny_model, ROWS, settings(asked), resume_step=2))

    assert budgets(folder) == [50, 50, expected, expected]
    assert [step["loss"] for step in steps_of(folder)] == pytest.approx(
        [step["loss"] for step in steps_of(plenty)], rel=1e-6
    )


def test_what_memory_was_not_enough_for_is_not_asked_for_again(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    settings = {"train": SETTINGS["train"] | {"tokensPerMicroBatch": 200}}
    folder = write_run(tmp_path, tiny_model, ROWS, settings)
    short(ranks, folder, 1, rank=0, tokens=60, calls=1)
    kept = budgets(folder)[0]
    event_log.cut_back(folder.events, 2)

    ranks.train(write_run(tmp_path, tiny_model, ROWS, settings, resume_step=2))

    assert kept <= 60
    assert budgets(folder) == [kept] * 4


def test_a_row_alone_that_finds_no_memory_ends_the_run_on_every_rank(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    folder = write_run(tmp_path, tiny_model, ROWS, SETTINGS)

    with pytest.raises(AssertionError, match=f"none can be smaller: the longest row has {LONGEST}"):
        short(ranks, folder, 2, rank=1, tokens=5, calls=1)


@pytest.mark.parametrize("fits", [1, 2, 5])
def test_sample_answers_are_made_fewer_at_a_time_and_stay_in_order(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    together: list[int] = []

    def answer(_: Any, prompts: Any, chosen: list[int]) -> list[int]:
        if len(chosen) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        together.append(len(chosen))
        return chosen

    monkeypatch.setattr(samples, "_answer_together", answer)
    session: Any = SimpleNamespace(
        sharding=SimpleNamespace(is_sharded=False), accelerator=SimpleNamespace(device=torch.device("cpu"))
    )

    assert samples._answer(session, None, [1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5]  # type: ignore[arg-type,list-item]
    assert max(together) <= fits
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        samples._answer(session, None, [1, 2, 3])  # type: ignore[arg-type,list-item]


@pytest.mark.parametrize(
    ("budget", "too_large", "longest", "expected"),
    [
        (16_384, 16_000, 1000, 8000),
        (16_384, 2300, 1000, 1150),
        (16_384, 1900, 1000, 1000),
        (1000, 1000, 1000, None),
        (1000, 900, 1000, None),
        (1, 700, 1000, None),
        (640, 640, 1, 320),
        (2, 2, 1, 1),
        (1, 1, 1, None),
    ],
)
def test_the_budget_is_half_of_what_failed_down_to_the_longest_row(
    budget: int, too_large: int, longest: int, expected: int | None
) -> None:
    assert memory_budget.halved(budget, too_large, longest) == expected


def test_the_rank_with_the_least_memory_decides_for_all(ranks: ForkedRanks, tmp_path: Path, tiny_model: Path) -> None:
    little = {"0": 2**40, "1": 2**22}
    folder = write_run(tmp_path, tiny_model, ROWS, SETTINGS)

    short(ranks, folder, 2, free=little)

    assert budgets(folder)[0] < memory_budget.CPU_TOKENS
