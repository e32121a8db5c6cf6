"""Training that cannot go on says why, in one line and by its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import ForkedRanks
from training_runs import random_rows, steps_of, write_run
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.train.schedule import Schedule


def cause(folder: RunFolder) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(folder.cause(0).read_text())
    assert "\n" not in values["message"]
    return values


def test_a_loss_that_is_no_number_ends_with_15_and_names_the_step(
    tmp_path: Path, tiny_model: Path, ranks: ForkedRanks
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    rows = random_rows(12)
    rows.input_ids[rows.input_ids == 5] = 6
    in_step_2 = Schedule(rows=12, global_batch=8, epochs=1, max_steps=None, seed=42).rows_of(2)[0]
    rows.row(in_step_2)[0][:] = 5
    folder = write_run(tmp_path / "run", tmp_path / "broken", rows, {"train": {"batchSize": 2}})

    assert ranks.end_of(folder) == 15

    assert "step 2" in cause(folder)["message"]
    assert [step["step"] for step in steps_of(folder)] == [1]


def test_an_evaluation_that_is_no_number_ends_with_15_too(tmp_path: Path, tiny_model: Path, ranks: ForkedRanks) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    folder = write_run(tmp_path / "run", tmp_path / "broken", random_rows(8), eval_rows=random_rows(2, seed=1))

    assert ranks.end_of(folder) == 15
    assert "evaluation loss is nan after step 0" in cause(folder)["message"]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"lora": {"targets": ["q_proj", "w1"]}}, 10, "'w1'"),
        ({"lora": {"experts": True}}, 10, "lora.experts"),
    ],
)
def test_what_the_model_does_not_have_is_refused_by_name(
    tmp_path: Path, tiny_model: Path, ranks: ForkedRanks, settings: dict[str, Any], code: int, words: str
) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(4), settings)

    assert ranks.end_of(folder) == code
    assert words in cause(folder)["message"]


def test_one_process_has_nothing_to_shard_over(tmp_path: Path, tiny_model: Path, ranks: ForkedRanks) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(4), {"train": {"sharding": "fsdp"}})

    assert ranks.end_of(folder) == 0


def test_a_folder_without_a_model_ends_with_12(tmp_path: Path, ranks: ForkedRanks) -> None:
    (tmp_path / "empty").mkdir()
    folder = write_run(tmp_path / "run", tmp_path / "empty", random_rows(4))

    assert ranks.end_of(folder) == 12


def test_a_plan_that_cannot_be_read_leaves_a_cause(tmp_path: Path, tiny_model: Path, ranks: ForkedRanks) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(4))
    folder.train_job.write_text("{")

    assert ranks.end_of(folder) == 1
    assert "JSONDecodeError" in cause(folder)["message"]
