"""`lorajob run` and `generate` as a person types them, on the real small model; and what `run` prints at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calling import Call
from lorajob.commands.run import closing_lines, complete
from lorajob.runs.summary import Summary
from lorajob_runtime.contract import spec
from lorajob_runtime.contract.errors import DATA, STOPPED, SUCCEEDED


def _lorajob(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lorajob", *arguments],
        cwd=folder,
        env=os.environ | {"LORAJOB_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_place_that_cannot_be_told_ends_the_run_with_an_event(tmp_path: Path) -> None:
    done = _lorajob(tmp_path, "run", "--storage", "~nosuchuser/x", "--name", "n", "-o", "json")

    end = json.loads(done.stdout.splitlines()[-1])
    assert (end["event"], end["exit_code"]) == ("end", done.returncode)
    assert "home" in end["message"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the run `first` was trained for two steps, and what that call came to."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "lorajob.yaml").write_text("data: {rows: ':8', evalRows: ':1'}\ntrain: {maxSteps: 2}\nname: first\n")
    done = _lorajob(
        folder,
        *("run", "--batch-size", "2", "--gradient-accumulation", "1", "--samples-every", "never"),
        *("--set", "report.swanlab.mode=disabled"),
    )
    return folder, done


@pytest.mark.slow
def test_a_run_ends_with_the_loss_the_adapter_and_what_to_type_next(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = trained

    assert done.returncode == 0, done.stderr
    loss, adapter, following = done.stdout.splitlines()
    assert loss.startswith("loss ")
    assert "evaluation loss" in loss
    assert "(step 1 -> 2)" in loss
    assert adapter == "adapter: ./runs/first/adapter"
    assert following == "next:    lorajob generate ./runs/first/adapter --prompt 'Who are you?'"
    assert (folder / "runs/first/adapter/adapter_model.safetensors").exists()
    assert done.stderr.splitlines()[:2] == ["spec: lorajob.yaml", "run: first, results in ./runs"]
    assert "\x1b" not in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_the_command_that_a_run_names_answers(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = trained

    done = _lorajob(folder, "generate", "./runs/first/adapter", "--prompt", "Who are you?", "--max-new-tokens", "4")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_and_says_so_as_json(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = trained

    done = _lorajob(
        folder,
        *("run", "--batch-size", "2", "--gradient-accumulation", "1", "--samples-every", "never", "-o", "json"),
        *("--set", "report.swanlab.mode=disabled"),
    )

    assert done.returncode == 0
    end = json.loads(done.stdout.splitlines()[-1])
    assert (end["event"], end["exit_code"]) == ("end", 0)
    assert "already done" in end["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--data", "nowhere.json"], 11, "data.source is 'nowhere.json': there is no such file"),
        (
            ["run", "--model", "qwen3-8b", "--data", "odd.json"],
            11,
            "no row has a known form: the first row has the keys 'a'",
        ),
        (["run", "--model", "qwen3-8", "--data", "rows.json"], 12, "did you mean qwen3-8b?"),
        (["data", "check", "nowhere.json"], 11, "nowhere.json"),
        (["data", "check", "caf\udce9.json"], 2, r"the spec holds 'caf\udce9': it must be text in UTF-8"),
        (["generate", "nothing"], 10, "no run 'nothing' in runs"),
        (["generate", "a", "--prompt", "b", "--file", "c"], 2, "--prompt and --file are given"),
        (["generate", "a", "--temperature", "-1"], 2, "--temperature is -1"),
    ],
)
def test_what_goes_wrong_once_something_was_started_has_the_runtimes_code(
    lorajob: Call, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "input": "", "output": "b"}]')
    (tmp_path / "odd.json").write_text('[{"a": "b"}]')

    outcome = lorajob(*arguments)

    assert outcome.code == code
    assert said in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("content", "hint"),
    [("[]", ""), ('[{"output": "a", "output": "b"}]', "correct the rows"), ('[{"a": "b"}]', "name")],
)
def test_a_look_at_data_does_not_advise_a_look_at_data(lorajob: Call, tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "rows.json").write_text(content)

    outcome = lorajob("data", "check", "rows.json", "--model", "smollm2-135m")

    assert outcome.code == 11
    assert "lorajob data check" not in outcome.err
    assert ("hint: " + hint in outcome.err) == bool(hint)


def _summary(*events: dict[str, object]) -> Summary:
    summary = Summary()
    for event in events:
        summary.handle(event)
    return summary


def test_the_summary_compares_the_first_step_with_the_last() -> None:
    steps = [{"event": "step", "step": step, "loss": 4.0 / step} for step in (1, 2, 4)]
    evaluations = [{"event": "evaluation", "step": step, "loss": 3.0 - step} for step in (0, 2)]

    assert _summary(*steps, *evaluations).loss_line() == (
        "loss 4.0000 -> 1.0000 (step 1 -> 4), evaluation loss 3.0000 -> 1.0000 (step 0 -> 2)"
    )


def test_the_summary_says_nothing_where_there_is_nothing_to_compare() -> None:
    assert _summary().loss_line() == ""
    assert _summary({"event": "step", "step": 1, "loss": 1.0}).loss_line() == ""


def test_closing_lines_fit_how_a_run_ended() -> None:
    named = complete(spec.parse({"name": "n", "storage": {"uri": "s3://bucket/some prefix/"}}))

    assert closing_lines(named, Summary(), SUCCEEDED.code) == [
        "adapter: s3://bucket/some prefix/n/adapter",
        "next:    lorajob generate 's3://bucket/some prefix/n/adapter' --prompt 'Who are you?'",
    ]
    assert closing_lines(named, Summary(), STOPPED.code) == ["stopped; continue with the same command and --name n"]
    assert closing_lines(named, Summary(), DATA.code) == []


def test_what_needs_code_of_a_repository_is_asked_with_it() -> None:
    model = {"name": "hf:acme/own", "revision": "abc", "trustRemoteCode": True}
    named = complete(spec.parse({"name": "n", "model": model}))

    assert closing_lines(named, Summary(), SUCCEEDED.code)[-1] == (
        "next:    lorajob generate ./runs/n/adapter --trust-remote-code --prompt 'Who are you?'"
    )
