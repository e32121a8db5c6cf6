"""What bench/gpu.sh runs on a card runs here without one, in tiny sizes: its references are met on a CPU too."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import spec

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A part of the kit by name, whose results go to a folder of the test's own."""
    monkeypatch.setenv("OUT", str(tmp_path))
    for folder in (ROOT / "tests/job/train", ROOT / "tests", BENCH):
        monkeypatch.syspath_prepend(str(folder))
    return lambda name: importlib.import_module(f"gpu.{name}")


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What was said, by name."""
    lines = map(json.loads, (folder / "gpu.jsonl").read_text().splitlines())
    return {line["name"]: line for line in lines}


def test_every_check_meets_its_reference(part: Any, tmp_path: Path) -> None:
    part("checks").main(["all"])

    found = results(tmp_path)
    assert len(found) == 12
    assert all(result["passed"] for result in found.values()), found
    assert found["two layers beside plain PEFT in fp32: loss, gradient's norm"]["loss"] < 2e-3


def test_a_check_that_breaks_is_a_result_and_stops_no_other(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = part("checks")

    def broken() -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setitem(checks.CHECKS, "documents", broken)
    checks.main(["documents", "head"])

    found = results(tmp_path)
    assert found.pop("documents")["error"] == "RuntimeError: no kernel image"
    assert [result["passed"] for result in found.values()] == [True]


@pytest.mark.slow
def test_whole_trainings_are_compared_and_one_goes_on_from_its_checkpoint(part: Any, tmp_path: Path) -> None:
    part("runs").main(["fp32"])

    found = results(tmp_path)
    assert set(found) == {"fp32", "fp32 beside transformers.Trainer", "resumed at step 6 beside never stopped"}
    assert all(result["passed"] for result in found.values()), found


def test_runs_that_should_be_alike_are_compared_and_a_missing_step_is_no_likeness(part: Any, tmp_path: Path) -> None:
    part("runs").compare({"fp32": [3.0, 2.0], "bf16": [3.01, 2.01], "bf16 again": [3.01]})

    found = results(tmp_path)
    assert {name: result["passed"] for name, result in found.items()} == {
        "bf16 beside fp32": True,
        "the same run twice": False,
    }


def test_speeds_of_every_setting_and_of_the_recipe_are_said(part: Any, tmp_path: Path) -> None:
    part("speed").dense()
    part("speed").glm()

    found = results(tmp_path)
    assert all(result["passed"] for result in found.values()), found
    speeds = {name for name, result in found.items() if result["kind"] == "speed"}
    assert {f"lorajob as it is, rows of {length}" for length in (80, 600, 1024)} < speeds
    assert {"lorajob without dropout, rows of 600", "tutorials' recipe, rows of 600"} < speeds
    assert any("GLM-4.5-Air" in name for name in speeds)
    assert found["lorajob activations recomputed, rows of 600"]["recomputes"]
    assert (tmp_path / "profile.txt").read_text()


def test_settings_that_only_cards_take_are_those_of_the_spec(part: Any) -> None:
    for settings in part("speed").CARD_VARIANTS.values():
        assert spec.parse({"name": "n", "model": {"name": "qwen3-8b"}, **settings}).train.base_compute == "fp8"


def test_work_that_was_asked_for_is_counted_by_hand(part: Any) -> None:
    from types import SimpleNamespace

    config = SimpleNamespace(
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=3,
        vocab_size=100,
    )

    # of a layer: q and o 16 x 32, k and v 16 x 16, three of the MLP 16 x 64
    weights = 3 * (2 * 16 * 32 + 2 * 16 * 16 + 3 * 16 * 64)
    expected = 10 * 4 * weights + 10 * 7 * 3 * 32 * 5 + 4 * 6 * 16 * 100
    assert part("speed").flops(config, 10, 6, 5) == expected


def test_the_table_says_what_did_not_pass(part: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part("results").say("check", "one", True, errors=[0.123456], ms=2.0)
    part("results").say("run", "two", False, why="killed")

    code = part("table").main(str(tmp_path / "gpu.jsonl"))

    printed = capsys.readouterr().out
    assert code == 1
    assert '| check: one | yes | {"errors": [0.1235], "ms": 2.0} |' in printed
    assert '| run: two | **NO** | {"why": "killed"} |' in printed
    assert "1 of 2 passed" in printed


def _run(tmp_path: Path, checks: str) -> subprocess.CompletedProcess[str]:
    """The one command with its first stage alone, `checks` being what that stage runs; nothing else imports torch."""
    python = tmp_path / "python"
    cases = f'*gpu.checks*) {checks};; *gpu.table*) exec {sys.executable} "$@";; *) exit 0;;'
    python.write_text(f'#!/usr/bin/env bash\ncase "$*" in {cases} esac\n')
    python.chmod(0o755)
    limits = {"LIMIT": "600", "STAGE_LIMIT": "600"}
    environment = os.environ | limits | {"OUT": str(tmp_path / "out"), "STAGES": "ceilings", "PYTHON": str(python)}
    command = ["bash", str(BENCH / "gpu.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)


def test_one_command_runs_stages_and_ends_with_the_table(tmp_path: Path) -> None:
    done = _run(tmp_path, f'exec {sys.executable} "$@"')

    assert done.returncode == 0, done.stdout + done.stderr
    assert "== ceilings: ended with 0" in done.stdout
    assert "2 of 2 passed" in done.stdout
    assert "== runs" not in done.stdout


def test_a_stage_that_ends_badly_is_a_result_that_did_not_pass(tmp_path: Path) -> None:
    done = _run(tmp_path, "echo no kernel image >&2; exit 3")

    assert done.returncode == 1
    assert '| stage: ceilings | **NO** | {"status": 3} |' in done.stdout
    assert "no kernel image" in done.stdout
