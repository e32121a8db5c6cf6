"""Training processes start while the dataset is prepared: they wait for it, and are gone where there will be none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lorajob_runtime.contract import errors, events
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.run import launcher
from lorajob_runtime.run.launcher import Launch
from lorajob_runtime.train import __main__ as worker
from small_models import smollm2, tiny_llama


def launch(folder: RunFolder, *, awaits_data: bool) -> Launch:
    """One worker that ends at once."""
    variables = {"PATH": os.environ["PATH"]}
    return Launch(folder=folder, attempt=1, processes=1, variables=variables, worker="this", awaits_data=awaits_data)


def test_workers_are_told_to_wait_and_then_that_the_dataset_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    training = launcher.Training(launch(folder, awaits_data=True))
    assert folder.data_awaited.exists()
    training.data_is_there()
    assert not folder.data_awaited.exists()

    training.kill()


def test_the_next_attempt_does_not_wait_because_of_one_that_was_broken_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    launcher.Training(launch(folder, awaits_data=True)).kill()
    assert folder.data_awaited.exists()

    launcher.Training(launch(folder, awaits_data=False)).kill()

    assert not folder.data_awaited.exists()


def test_a_worker_goes_on_when_the_dataset_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.work.mkdir(parents=True)
    folder.data_awaited.touch()
    waiting = threading.Thread(target=worker.wait_for_data, args=(folder,), daemon=True)

    waiting.start()
    assert waiting.is_alive()
    folder.data_awaited.unlink()
    waiting.join(60)

    assert not waiting.is_alive()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


def run(tmp_path: Path, model: Path, data: str | None) -> subprocess.CompletedProcess[str]:
    spec = {
        "name": "n",
        "model": {"name": str(model)},
        "data": {"source": data, "rows": ":8"},
        "train": {"maxSteps": 1},
        "report": {"samples": {"count": 0}, "swanlab": {"mode": "disabled"}},
        "storage": {"uri": str(tmp_path / "runs")},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "lorajob_runtime", str(tmp_path / "spec.json"), "--processes", "1"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_a_run_trains_on_the_dataset_that_its_workers_waited_for(tmp_path: Path, model: Path) -> None:
    done = run(tmp_path, model, None)

    assert done.returncode == 0, done.stdout + done.stderr
    log = list(events.read(RunFolder(tmp_path / "runs/n").events))
    told = [each["name"] if each["event"] == "phase" else each["event"] for each in log]
    assert [each for each in told if each in ("data", "train", "step", "publish")] == [
        "data",
        "train",
        "step",
        "publish",
    ]


@pytest.mark.slow
def test_a_dataset_that_cannot_be_used_leaves_no_training_process(tmp_path: Path, model: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"a": 1}, {"b": 2}]')

    done = run(tmp_path, model, str(tmp_path / "rows.json"))

    assert done.returncode == errors.DATA.code, done.stdout + done.stderr
    assert [each for each in _commands() if str(tmp_path) in each] == []
    assert not RunFolder(tmp_path / "runs/n").cause(0).exists()


def _commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text("utf-8", "replace").replace("\0", " "))
        except OSError:
            # it ended meanwhile
            continue
    return found
