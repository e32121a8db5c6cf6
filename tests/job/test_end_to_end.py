"""The whole path with its real parts: the command, S3, SwanLab's protocol, two training processes, and a SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.swanlab_server import SwanLabServer, serving
from lorajob_runtime.contract import events
from small_models import smollm2, tiny_llama
from waiting import wait_until

TOTAL = 60
SETTINGS = ["train.batchSize=2", "train.gradientAccumulation=1", "train.saveSteps=6", "train.loggingSteps=1"]
SETTINGS += [f"train.maxSteps={TOTAL}", "data.rows=:150", "data.evalRows=150:156"]
SETTINGS += ["report.samples.count=2", "report.samples.maxNewTokens=4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


@pytest.fixture
def swanlab() -> Iterator[SwanLabServer]:
    with serving() as server:
        yield server


@pytest.fixture
def start(
    s3_server: Any, swanlab: SwanLabServer, model: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `lorajob run` of a name into a bucket, in a working folder of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(name: str, bucket: str, *settings: str, work: str = "work") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lorajob", "run", "--model", str(model), "--name", name]
        command += ["--storage", f"s3://{bucket}/runs", "--processes", "2"]
        for setting in [*SETTINGS, *settings]:
            command += ["--set", setting]
        ours = {"LORAJOB_DEVICE": "cpu", "LORAJOB_WORK": str(tmp_path / work)}
        variables = os.environ | s3_server.variables() | swanlab.variables() | ours
        process = subprocess.Popen(command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=240)
    return process.returncode, told


@pytest.mark.slow
@pytest.mark.parametrize("is_folder_lost", [False, True], ids=["same-machine", "another-machine"])
def test_killed_and_typed_again_a_run_ends_as_if_it_had_never_been_stopped(
    start: Callable[..., subprocess.Popen[str]],
    s3_server: Any,
    swanlab: SwanLabServer,
    tmp_path: Path,
    is_folder_lost: bool,
) -> None:
    bucket = s3_server.make_bucket()

    def stored(name: str, key: str) -> bytes:
        content: bytes = s3_server.client().get_object(Bucket=bucket, Key=f"runs/{name}/{key}")["Body"].read()
        return content

    code, told = finish(start("whole", bucket, "report.swanlab.mode=disabled"))
    assert code == 0, told
    killed = start("broken", bucket)
    wait_until(
        lambda: "runs/broken/checkpoints/step-000006/checkpoint.json" in s3_server.keys(bucket),
        seconds=180,
        what="the first checkpoint in S3",
    )
    # SwanLab's own client sends texts apart from numbers, and none later of a step whose numbers the server has
    wait_until(
        lambda: any(each.texts("Prediction", 0) for each in list(swanlab.experiments.values())),
        seconds=60,
        what="the first answers at SwanLab",
    )
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    code, told = finish(start("broken", bucket, work="elsewhere" if is_folder_lost else "work"))

    assert code == 0, told
    resumed = re.search(r"going on from the checkpoint of step (\d+)", told)
    assert resumed is not None
    assert 6 <= int(resumed[1]) < TOTAL, "it was killed too late to show anything"
    for file in ("adapter/adapter_model.safetensors", "checkpoints/step-000060/optimizer.safetensors"):
        assert stored("broken", file) == stored("whole", file)
    log = tmp_path / "events.jsonl"
    log.write_bytes(stored("broken", "events.jsonl"))
    assert [event["step"] for event in events.read(log) if event["event"] == "step"] == list(range(1, TOTAL + 1))
    experiment = swanlab.only_experiment()
    assert experiment.starts == 2
    assert experiment.twice() == []
    assert sorted(experiment.series("train/loss")) == list(range(1, TOTAL + 1))
    assert experiment.texts("Prediction", 0)


@pytest.mark.slow
def test_a_changed_spec_is_refused_with_the_difference_and_nothing_is_lost(
    start: Callable[..., subprocess.Popen[str]], s3_server: Any
) -> None:
    bucket = s3_server.make_bucket()
    code, told = finish(start("fixed", bucket, "report.swanlab.mode=disabled", "train.maxSteps=3"))
    assert code == 0, told
    before = s3_server.keys(bucket)

    code, told = finish(start("fixed", bucket, "train.maxSteps=3", "train.learningRate=5e-4"))

    assert code == 10
    assert "train.learningRate" in told
    assert "0.0005" in told
    assert s3_server.keys(bucket) == before
