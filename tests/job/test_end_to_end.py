"""The whole path with its real parts: the command, S3, SwanLab's protocol, two training processes, and a SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.swanlab_server import SwanLabServer, serving
from lorajob_runtime.contract import events
from s3_servers import S3Server
from small_models import smollm2, tiny_llama
from waiting import wait_until

TOTAL = 60
SETTINGS = ["train.batchSize=2", "train.gradientAccumulation=1", "train.saveSteps=6", "train.loggingSteps=1"]
SETTINGS += [f"train.maxSteps={TOTAL}", "data.rows=:150", "data.evalRows=150:156"]
SETTINGS += ["report.samples.count=2", "report.samples.maxNewTokens=4"]
WITHOUT_SWANLAB = "report.swanlab.mode=disabled"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


@pytest.fixture
def swanlab() -> Iterator[SwanLabServer]:
    with serving() as server:
        yield server


@dataclass
class Machine:
    """Where someone types `lorajob run`: a folder, a model, and the way to S3 and SwanLab."""

    place: Path
    model: Path
    variables: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, name: str, bucket: str, *settings: str, work: str = "work") -> subprocess.Popen[str]:
        """Starts a run of a name into a bucket, in a working folder of its own."""
        command = [sys.executable, "-m", "lorajob", "run", "--model", str(self.model), "--name", name]
        command += ["--storage", f"s3://{bucket}/runs", "--processes", "2"]
        for setting in [*SETTINGS, *settings]:
            command += ["--set", setting]
        variables = os.environ | self.variables | {"LORAJOB_DEVICE": "cpu", "LORAJOB_WORK": str(self.place / work)}
        process = subprocess.Popen(command, env=variables, cwd=self.place, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


@pytest.fixture
def start(
    s3_server: S3Server, swanlab: SwanLabServer, model: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    machine = Machine(tmp_path, model, s3_server.variables() | swanlab.variables())
    yield machine.start
    machine.end()


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket with the run `whole`, to which nothing happened."""
    bucket = s3_server.make_bucket()
    machine = Machine(tmp_path_factory.mktemp("whole"), model, s3_server.variables())
    try:
        code, told = finish(machine.start("whole", bucket, WITHOUT_SWANLAB))
    finally:
        machine.end()
    assert code == 0, told
    return bucket


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=240)
    return process.returncode, told


@pytest.mark.slow
@pytest.mark.parametrize("is_folder_lost", [False, True], ids=["same-machine", "another-machine"])
def test_killed_and_typed_again_a_run_ends_as_if_it_had_never_been_stopped(
    start: Callable[..., subprocess.Popen[str]],
    s3_server: S3Server,
    bucket: str,
    swanlab: SwanLabServer,
    tmp_path: Path,
    is_folder_lost: bool,
) -> None:
    broken = "elsewhere" if is_folder_lost else "here"

    def stored(name: str, key: str) -> bytes:
        content: bytes = s3_server.client().get_object(Bucket=bucket, Key=f"runs/{name}/{key}")["Body"].read()
        return content

    killed = start(broken, bucket)
    wait_until(
        lambda: f"runs/{broken}/checkpoints/step-000006/checkpoint.json" in s3_server.keys(bucket),
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

    code, told = finish(start(broken, bucket, work="elsewhere" if is_folder_lost else "work"))

    assert code == 0, told
    resumed = re.search(r"going on from the checkpoint of step (\d+)", told)
    assert resumed is not None
    assert 6 <= int(resumed[1]) < TOTAL, "it was killed too late to show anything"
    for file in ("adapter/adapter_model.safetensors", "checkpoints/step-000060/optimizer.safetensors"):
        assert stored(broken, file) == stored("whole", file)
    log = tmp_path / "events.jsonl"
    log.write_bytes(stored(broken, "events.jsonl"))
    assert [event["step"] for event in events.read(log) if event["event"] == "step"] == list(range(1, TOTAL + 1))
    experiment = swanlab.only_experiment()
    assert experiment.starts == 2
    assert experiment.twice() == []
    assert sorted(experiment.series("train/loss")) == list(range(1, TOTAL + 1))
    assert experiment.texts("Prediction", 0)


@pytest.mark.slow
def test_a_changed_spec_is_refused_with_the_difference_and_nothing_is_lost(
    start: Callable[..., subprocess.Popen[str]], s3_server: S3Server, bucket: str
) -> None:
    before = s3_server.keys(bucket)

    code, told = finish(start("whole", bucket, WITHOUT_SWANLAB, "train.learningRate=5e-4"))

    assert code == 10
    assert "train.learningRate" in told
    assert "0.0005" in told
    assert s3_server.keys(bucket) == before
