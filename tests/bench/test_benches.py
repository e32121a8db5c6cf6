"""Every script of bench/ runs to its end, on inputs so small that its figures mean nothing."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorajob_runtime.data.tokens import TokenRows
from small_models import smollm2, tiny_llama

BENCH = Path(__file__).resolve().parents[2] / "bench"
NUMBER = r"\d+(?:\.\d+)?"
TUTORIAL = "started by train.py, whose table has a row of its own for it"
RUN_HERE = {
    "train.py",
    "startup.py",
    "threads.py",
    "moe.py",
    "sharding.py",
    "checkpoints.py",
    "cli.py",
    "reading.py",
    "data.py",
    "turns.py",
    "kernel_counts.py",
    "functions.py",
    "scaling.py",
}


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """What a script prints: `table("train.py", *arguments)`, in this process, which has imported torch already."""

    def run(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(BENCH / script), *arguments])
        monkeypatch.syspath_prepend(str(BENCH))
        runpy.run_path(str(BENCH / script), run_name="__main__")
        return capsys.readouterr().out

    yield run
    # another script may be called so elsewhere
    for name in (
        "train",
        "reading",
        "turns",
        "counting",
        "counting.layers",
        "counting.operations",
        "counting.backward",
    ):
        sys.modules.pop(name, None)


def _has_row(printed: str, *cells: str) -> bool:
    """Whether a Markdown table has a row of such cells, each a regular expression."""
    row = r"\| " + r" \| ".join(f"(?:{cell})" for cell in cells) + r" \|"
    return re.search(f"(?m)^{row}$", printed) is not None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


def test_every_script_is_run_by_a_test_here() -> None:
    assert {path.name for path in BENCH.glob("*.py")} == RUN_HERE | {"tutorial.py"}, TUTORIAL


@pytest.mark.slow
def test_training_is_compared_with_the_tutorials_recipe(model: Path, table: Callable[..., str], tmp_path: Path) -> None:
    few = ("--model", str(model), "--rows", "8", "--steps", "2", "--rounds", "1", "--sides", "lorajob", "tutorial")
    kept = tmp_path / "figures.json"
    printed = table("train.py", *few, "--json", str(kept))

    for side in ("tutorial's recipe", "lorajob"):
        assert _has_row(printed, side, NUMBER, NUMBER, r"\d+\.\d{4}", NUMBER, NUMBER), printed
    assert re.search(rf"(?m)^lorajob / tutorial's recipe: {NUMBER}x \(rounds: {NUMBER}\)$", printed), printed
    figures = json.loads(kept.read_text())
    assert figures["without_speed"] == {}
    assert len(figures["sides"]["lorajob"][0]["losses"]) == 2


@pytest.mark.slow
def test_ways_to_wait_are_compared(model: Path, table: Callable[..., str]) -> None:
    few = ("--rows", "8", "--steps", "2", "--rounds", "1", "--beside", "1", "--spins", "0")
    printed = table("threads.py", "--model", str(model), *few)

    assert _has_row(printed, "1", "0", NUMBER, r"1\.00x", NUMBER, rf"{NUMBER} to {NUMBER}"), printed


@pytest.mark.slow
def test_routed_experts_are_compared_with_pefts_own_way(table: Callable[..., str]) -> None:
    few = ("--experts", "8", "--hidden", "64", "--layers", "1", "--tokens", "16", "--rounds", "1")
    printed = table("moe.py", *few)

    for side in ("attention and shared only", "PEFT's ParamWrapper", "factored"):
        assert _has_row(printed, "16", side, NUMBER, NUMBER, rf"-?{NUMBER}"), printed
    assert re.search(rf"16 tokens: {NUMBER}x faster than PEFT", printed)


def test_what_a_checkpoint_costs_training_is_measured(table: Callable[..., str]) -> None:
    printed = table("checkpoints.py", "--megabytes", "1", "--rounds", "1")

    assert _has_row(printed, NUMBER, NUMBER, NUMBER, rf"-?{NUMBER}"), printed


@pytest.mark.slow
def test_checkpoints_of_sharded_models_are_compared(table: Callable[..., str]) -> None:
    printed = table("sharding.py", "--models", "tiny", "--processes", "2", "--rounds", "1", "--saves", "1")

    for side in ("accelerate", "lorajob"):
        assert _has_row(printed, f"tiny, {NUMBER} MiB", "2", side, *[NUMBER] * 6), printed


@pytest.mark.cluster
def test_the_command_line_is_compared_with_kubectl(api_server: Any) -> None:
    few = ("--kubeconfig", str(api_server.kubeconfig), "--runs", "3", "--rounds", "1")
    # 1: over a bar, which says nothing of one round on a busy machine
    done = subprocess.run([sys.executable, str(BENCH / "cli.py"), *few], capture_output=True, text=True, timeout=300)
    printed = done.stdout
    assert done.returncode in (0, 1), f"{printed}\n{done.stderr}"

    for command in ("lorajob --help", "lorajob submit", "lorajob list"):
        assert _has_row(printed, f"`{command}`", NUMBER, "`.+`", NUMBER, f"{NUMBER}x", f"{NUMBER}x"), printed
    assert "`lorajob list` over 3 runs held" in printed
    for way in ("`kubernetes`, typed", "lorajob, pages of 500"):
        assert _has_row(printed, way, NUMBER, NUMBER, NUMBER), printed


def test_reading_and_tokenising_a_dataset_are_measured(model: Path, table: Callable[..., str]) -> None:
    printed = table("reading.py", "--megabytes", "0.01", "--tokenise", "--model", str(model))

    for kind in ("JSON Lines", "one JSON list on one line", "CSV", "Parquet"):
        for what in ("read", "tokenised"):
            assert _has_row(printed, kind, r"0\.0", what, NUMBER, r"\d+"), printed


def test_preparing_is_compared_with_datasets_map(model: Path, table: Callable[..., str], tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    printed = table("data.py", "--rows", "40", "--model", str(model), "--json", str(kept))

    assert "40 rows, " in printed
    ways = ("lorajob, start alone", "lorajob, with its start", "datasets.map, num_proc 1", "datasets.map, num_proc 2")
    for way in ways:
        assert _has_row(printed, way, NUMBER, NUMBER, r"\d+"), printed
    assert re.search(rf"(?m)^lorajob without its start / the cheaper baseline: {NUMBER}x by the processor$", printed)
    assert json.loads(kept.read_text())["ways"].keys() == set(ways)


def test_rows_that_differ_from_the_baselines_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    check_same = runpy.run_path(str(BENCH / "data.py"))["check_same"]
    rows = TokenRows.of([(np.array([5, 6, 7, 8], np.int32), np.array([False, False, True, True]))])

    def told(ids: list[int], labels: list[int]) -> None:
        np.savez(tmp_path / "told.npz", offsets=[0, 4], input_ids=ids, labels=labels)
        check_same(rows, tmp_path / "told.npz")

    told([5, 6, 7, 0], [-100, -100, 7, 0])
    for ids, labels in (([5, 6, 9, 8], [-100, -100, 9, 8]), ([5, 6, 7, 8], [-100, 6, 7, 8])):
        with pytest.raises(SystemExit, match="other tokens or labels"):
            told(ids, labels)


def test_the_memory_of_a_preparation_is_measured(model: Path, table: Callable[..., str]) -> None:
    printed = table("data.py", "--gigabytes", "0.0001", "--model", str(model))

    assert _has_row(printed, r"0\.00", r"\d+", r"[\d,]+", NUMBER, NUMBER, rf"{NUMBER}(?:, {NUMBER})*"), printed


def test_long_conversations_are_compared_with_single_rounds(model: Path, table: Callable[..., str]) -> None:
    printed = table("turns.py", "--rows", "2", "--length", "6", "--model", str(model))

    for way in ("start", "single rounds", "conversations"):
        assert _has_row(printed, way, NUMBER, r"\d+"), printed
    assert re.search(rf"(?m)^conversations / single rounds: {NUMBER}x$", printed)


def test_preparing_is_compared_with_another_checkout(model: Path, table: Callable[..., str]) -> None:
    few = ("--rows", "2", "--length", "1", "--model", str(model))
    printed = table("turns.py", *few, "--beside", str(BENCH.parent))

    for way in ("start", "single rounds", "conversations"):
        assert _has_row(printed, f"beside: {way}", NUMBER, r"\d+"), printed
    for way in ("single rounds", "conversations"):
        assert re.search(rf"(?m)^{way}, this checkout / the one beside it: {NUMBER}x$", printed), printed


def test_kernels_of_a_layer_are_counted_and_compared(model: Path, table: Callable[..., str], tmp_path: Path) -> None:
    before = str(tmp_path / "before.json")
    few = ("--model", str(model), "--tokens", "32")
    table("kernel_counts.py", *few, "--json", before)
    printed = table("kernel_counts.py", *few, "--beside", before)

    assert _has_row(printed, "backward", "`mm`", r"\d+", "", NUMBER), printed
    for side in ("before", "now"):
        assert _has_row(printed, f"{side}: a layer", r"\d+", r"\d+", NUMBER, NUMBER, NUMBER), printed


def test_functions_of_the_base_model_are_compared_with_none(model: Path, table: Callable[..., str]) -> None:
    printed = table("functions.py", "--model", str(model), "--rounds", "1")

    for way in ("none", "rms_norm", "swiglu", "rotary", "attention_fp32", "attention_fp32_backward", "all"):
        assert _has_row(printed, way, NUMBER, NUMBER, NUMBER, f"{NUMBER}x"), printed


def test_the_pace_of_more_gpus_is_worked_out(table: Callable[..., str]) -> None:
    printed = table("scaling.py", "--gpu", "h200")

    pace = r"[\d,]+"
    for network in ("infiniband", "ethernet"):
        assert _has_row(printed, "qwen3-8b", network, pace, *[rf"{pace} \({NUMBER}x\)"] * 6), printed
        assert _has_row(printed, "glm-4.5-air", network, "-", pace, *[rf"{pace} \({NUMBER}x\)"] * 5), printed


@pytest.mark.slow
def test_a_start_is_compared_with_the_least_that_training_has_to_do(model: Path, table: Callable[..., str]) -> None:
    printed = table("startup.py", "--model", str(model), "--rounds", "1")

    for part in ("until it holds the run", "weights", "dataset", "training process, until its first step is done"):
        assert _has_row(printed, part, NUMBER), printed
    assert _has_row(printed, "the least, to its first step", NUMBER), printed
    assert re.search(rf"(?m)^lorajob / the least: {NUMBER}x \(rounds: {NUMBER}\)$", printed), printed
