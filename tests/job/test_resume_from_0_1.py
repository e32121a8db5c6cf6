"""A run that version 0.1 started, and that was killed, goes on with this version as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fixtures.make import COMMAND, NAME, SETTINGS
from lorajob_runtime.contract import events, layout
from lorajob_runtime.contract.layout import RunFolder

FIXTURE = Path(__file__).parents[1] / "fixtures/0.1"
KEPT = 30
"""The last checkpoint that reached storage; the killed run was further on."""
TOTAL = 60


def train(place: Path) -> tuple[RunFolder, str]:
    """Types the fixture's command in a folder; returns what storage has then, and what was printed."""
    settings = [each for name, value in SETTINGS.items() for each in ("--set", f"{name}={value}")]
    variables = os.environ | {"LORAJOB_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "LORAJOB_CACHE": str(place / "cache")}
    ended = subprocess.run(
        [sys.executable, "-m", "lorajob", *COMMAND, *settings],
        cwd=place,
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    return RunFolder(place / "runs" / NAME), ended.stderr


def losses(run: RunFolder) -> dict[int, float]:
    """Loss of every step. A step that the log has twice fails the test."""
    steps = [event for event in events.read(run.events) if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, TOTAL + 1))
    return {step["step"]: step["loss"] for step in steps}


def evaluations(run: RunFolder) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in events.read(run.events) if event["event"] == "evaluation"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run by this version, never stopped."""
    place = tmp_path_factory.mktemp("whole") / "place"
    shutil.copytree(FIXTURE, place, ignore=shutil.ignore_patterns("runs"))
    return train(place)[0]


@pytest.mark.slow
@pytest.mark.parametrize("is_machine_lost", [False, True], ids=["same-machine", "another-machine"])
def test_it_ends_with_the_adapter_of_a_run_that_was_never_stopped(
    whole: RunFolder, tmp_path: Path, is_machine_lost: bool
) -> None:
    place = tmp_path / "place"
    shutil.copytree(FIXTURE, place, ignore=shutil.ignore_patterns(".work") if is_machine_lost else None)

    run, told = train(place)

    assert f"going on from the checkpoint of step {KEPT}" in told
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    assert evaluations(run) == pytest.approx(evaluations(whole), rel=1e-5)
    assert sorted(evaluations(run)) == [0, KEPT, TOTAL]
    adapter, expected = (load_file(each.adapter / layout.ADAPTER_WEIGHTS) for each in (run, whole))
    assert adapter.keys() == expected.keys()
    for name, matrix in adapter.items():
        assert matrix.numpy() == pytest.approx(expected[name].numpy(), rel=1e-4, abs=1e-6), name
    # an older image may be what goes on from here: nothing that it reads is missing
    written = [_state(next(FIXTURE.rglob("state.json"))), _state(run.checkpoint(TOTAL) / "state.json")]
    assert written[0].keys() <= written[1].keys()
    if all(losses(run)[step] == losses(whole)[step] for step in range(1, KEPT + 1)):
        # this processor rounds as the one on which the fixture was made
        for path in (layout.ADAPTER_WEIGHTS, layout.OPTIMIZER):
            ours, theirs = (each.checkpoint(TOTAL) / path for each in (run, whole))
            assert ours.read_bytes() == theirs.read_bytes(), path


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return state
