"""A run that was killed and started again is bit for bit the run that was never stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from forked_ranks import ForkedRanks
from safetensors.torch import load_file
from training_runs import random_rows, run_training, start_training, steps_of, write_run
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract import events, layout
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint, event_log
from waiting import wait_until

SETTINGS = {"lora": {"dropout": 0.1}, "train": {"batchSize": 2, "gradientAccumulation": 2, "epochs": 2, "saveSteps": 5}}


def final(folder: RunFolder) -> dict[str, bytes]:
    path = folder.checkpoint(checkpoint.steps(folder)[-1])
    return {name: (path / name).read_bytes() for name in (layout.ADAPTER_WEIGHTS, layout.OPTIMIZER, layout.STATE)}


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_after_a_checkpoint_and_resumed_it_ends_bit_identical(
    tmp_path: Path, tiny_model: Path, ranks: ForkedRanks, processes: int
) -> None:
    rows, held_out = random_rows(50), random_rows(7, seed=1)
    whole = write_run(tmp_path / "whole", tiny_model, rows, SETTINGS, eval_rows=held_out)
    ranks.train(whole, processes=processes)
    broken = write_run(tmp_path / "broken", tiny_model, rows, SETTINGS, eval_rows=held_out)
    first = start_training(broken, processes=processes)
    wait_until(lambda: checkpoint.steps(broken), seconds=120, what="a checkpoint")
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = checkpoint.steps(broken)[0]
    for later in checkpoint.steps(broken)[1:]:
        (broken.checkpoint(later) / layout.MANIFEST).unlink()
    event_log.cut_back(broken.events, kept)

    resumed = write_run(tmp_path / "broken", tiny_model, rows, SETTINGS, resume_step=kept, attempt=2)
    ranks.train(resumed, processes=processes)

    assert final(resumed) == final(whole)
    assert [step["step"] for step in steps_of(resumed)] == list(range(1, steps_of(whole)[-1]["step"] + 1))
    assert [step["loss"] for step in steps_of(resumed)] == [step["loss"] for step in steps_of(whole)]
    assert [event["step"] for event in events.read(resumed.events) if event["event"] == "evaluation"] == [
        event["step"] for event in events.read(whole.events) if event["event"] == "evaluation"
    ]


def test_a_stop_request_ends_training_with_a_checkpoint_of_the_step_and_its_own_exit_code(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(50), SETTINGS)
    folder.stop_request.touch()

    assert run_training(folder, processes=2) == 1, "torchrun hides the workers' code"

    assert checkpoint.steps(folder) == [1]
    assert [json.loads(folder.cause(rank).read_text())["exit_code"] for rank in (0, 1)] == [30, 30]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_in_a_long_evaluation_is_seen_in_it_and_the_evaluation_made_at_the_next_start(
    tmp_path: Path, tiny_model: Path, processes: int
) -> None:
    settings = {"train": {"maxSteps": 1, "saveSteps": 1}}
    rows, held_out = random_rows(4), random_rows(40_000, seed=1)
    folder = write_run(tmp_path, tiny_model, rows, settings, eval_rows=held_out, resume_step=None)
    training = start_training(folder, processes=processes)
    wait_until(
        lambda: any(event.get("name") == "doing" for event in events.read(folder.events)), seconds=120, what="it"
    )

    folder.stop_request.touch()

    # an evaluation of all the rows takes minutes
    assert training.wait(60) in (1, 30)
    assert json.loads(folder.cause(0).read_text())["exit_code"] == 30
    assert not [event for event in events.read(folder.events) if event["event"] in ("step", "evaluation")]


def test_a_checkpoint_is_there_before_the_look_that_belongs_to_it_which_a_killed_run_makes_anew(
    tmp_path: Path, tiny_model: Path, ranks: ForkedRanks
) -> None:
    settings = {"train": {"maxSteps": 1, "saveSteps": 1}}
    folder = write_run(tmp_path, tiny_model, random_rows(4), settings, eval_rows=random_rows(300, seed=1))
    training = start_training(folder)
    wait_until(lambda: checkpoint.steps(folder), seconds=120, what="the checkpoint")
    training.send_signal(signal.SIGKILL)
    training.wait()
    assert not events.was_evaluated(folder.events, 1), "the evaluation after the step was under way"
    event_log.cut_back(folder.events, 1, evaluation_pending=True)

    again = write_run(
        tmp_path, tiny_model, random_rows(4), settings, eval_rows=random_rows(9, seed=1), resume_step=1, attempt=2
    )
    ranks.train(again)

    assert events.was_evaluated(again.events, 1)
    assert [event["step"] for event in events.read(again.events) if event["event"] == "evaluation"] == [0, 1]
    assert not [event for event in events.read(again.events) if event.get("message") == "makes step 2"], "of one"
    assert len(steps_of(again)) == 1


def test_other_tokens_than_the_checkpoints_are_refused(tmp_path: Path, tiny_model: Path, ranks: ForkedRanks) -> None:
    stop_at_one = {"train": {"maxSteps": 1}}
    ranks.train(write_run(tmp_path, tiny_model, random_rows(9), stop_at_one))

    resumed = write_run(tmp_path, tiny_model, random_rows(9, seed=5), stop_at_one, resume_step=1)

    assert ranks.end_of(resumed) == 10
    assert "data.source" in json.loads(resumed.cause(0).read_text())["message"]


def test_other_weights_than_the_checkpoints_are_refused(tmp_path: Path, tiny_model: Path, ranks: ForkedRanks) -> None:
    stop_at_one = {"train": {"maxSteps": 1}}
    ranks.train(write_run(tmp_path / "run", tiny_model, random_rows(9), stop_at_one))
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] += 0.5
    model.save_pretrained(tmp_path / "other")

    resumed = write_run(tmp_path / "run", tmp_path / "other", random_rows(9), stop_at_one, resume_step=1)

    assert ranks.end_of(resumed) == 10
    assert str(tiny_model) in json.loads(resumed.cause(0).read_text())["message"]


def test_every_module_that_the_report_counts_is_trained_the_head_too(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(tmp_path / "untied")
    targets = {"lora": {"targets": ["q_proj", "down_proj", "lm_head"]}, "train": {"maxSteps": 2}}
    folder = write_run(tmp_path / "run", tmp_path / "untied", random_rows(40), targets)

    ranks.train(folder)

    adapter = load_file(folder.checkpoint(2) / layout.ADAPTER_WEIGHTS)
    seconds = {name: matrix for name, matrix in adapter.items() if "lora_B" in name}
    assert len(seconds) == 5
    assert all(matrix.abs().sum() > 0 for matrix in seconds.values())


def test_on_another_number_of_processes_the_global_batch_and_the_losses_stay(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    without_dropout = {"train": SETTINGS["train"]}
    one = write_run(tmp_path / "one", tiny_model, random_rows(50), without_dropout)
    ranks.train(one)
    two = write_run(tmp_path / "two", tiny_model, random_rows(50), without_dropout)
    ranks.train(two)
    event_log.cut_back(two.events, 5)

    ranks.train(write_run(two.root, tiny_model, random_rows(50), without_dropout, resume_step=5), processes=2)

    assert [step["tokens"] for step in steps_of(two)] == [step["tokens"] for step in steps_of(one)]
    assert [step["loss"] for step in steps_of(two)] == pytest.approx([step["loss"] for step in steps_of(one)], rel=1e-5)
