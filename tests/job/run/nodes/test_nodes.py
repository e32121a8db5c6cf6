"""Two nodes of a run on one machine: real training processes that meet by torchrun, real S3, and one that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import events, kubernetes
from small_models import smollm2, tiny_llama
from waiting import wait_until

STEPS = 40
PROGRAM = Path(__file__).parent / "programs" / "node.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


class Nodes:
    """The pods of runs, as processes with nothing in common but S3 and the model."""

    def __init__(self, s3: Any, model: Path, root: Path) -> None:
        self.bucket: str = s3.make_bucket()
        self._s3 = s3
        self._model = model
        self._root = root
        self._processes: list[subprocess.Popen[bytes]] = []

    def spec(self, name: str, *, nodes: int, gpus: int, steps: int = STEPS, **train: Any) -> Path:
        values = {
            "name": name,
            "model": {"name": str(self._model)},
            "data": {"rows": ":60", "evalRows": "60:64"},
            "train": {
                "batchSize": 2,
                "gradientAccumulation": 1,
                "epochs": 99,
                "saveSteps": 5,
                "maxSteps": steps,
                **train,
            },
            "report": {"samples": {"count": 2, "maxNewTokens": 4}, "swanlab": {"mode": "disabled"}},
            "resources": {"nodes": nodes, "gpus": gpus},
            "storage": {"uri": f"s3://{self.bucket}/runs"},
        }
        path = self._root / f"{name}.json"
        path.write_text(json.dumps(values))
        return path

    def start(self, spec: Path, node: int, *, life: str = "first") -> subprocess.Popen[bytes]:
        place = self._root / f"{spec.stem}-{node}-{life}"
        place.mkdir()
        variables = self._s3.variables() | {"LORAJOB_DEVICE": "cpu", "LORAJOB_WORK": str(place / "work")}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(spec), str(node), str(place / "words")],
                env=os.environ | variables,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def words(self, spec: Path, node: int, *, life: str = "first") -> kubernetes.TerminationMessage | None:
        return kubernetes.read_termination_message((self._root / f"{spec.stem}-{node}-{life}" / "words").read_text())

    def log(self, spec: Path, node: int, *, life: str = "first") -> str:
        return (self._root / f"{spec.stem}-{node}-{life}" / "log").read_text(errors="replace")

    def stored(self, spec: Path, key: str) -> bytes:
        found = self._s3.client().get_object(Bucket=self.bucket, Key=f"runs/{spec.stem}/{key}")
        content: bytes = found["Body"].read()
        return content

    def keys(self, spec: Path) -> set[str]:
        prefix = f"runs/{spec.stem}/"
        return {key.removeprefix(prefix) for key in self._s3.keys(self.bucket) if key.startswith(prefix)}

    def steps(self, spec: Path) -> list[int]:
        path = self._root / "events.jsonl"
        path.write_bytes(self.stored(spec, "events.jsonl"))
        return [event["step"] for event in events.read(path) if event["event"] == "step"]

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def nodes(s3_server: Any, model: Path, tmp_path: Path) -> Iterator[Nodes]:
    started = Nodes(s3_server, model, tmp_path)
    yield started
    started.end()


FILES = ("adapter/adapter_model.safetensors", f"checkpoints/step-{STEPS:06d}/optimizer.safetensors")


@pytest.fixture(scope="module")
def one_node(s3_server: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a run of one node with two processes makes that nothing happens to."""
    alone = Nodes(s3_server, model, tmp_path_factory.mktemp("alone"))
    spec = alone.spec("alone", nodes=1, gpus=2)
    try:
        assert alone.start(spec, 0).wait(400) == 0, alone.log(spec, 0)
        return [alone.stored(spec, file) for file in FILES]
    finally:
        alone.end()


def test_two_nodes_make_the_adapter_that_two_processes_of_one_node_make(nodes: Nodes, one_node: list[bytes]) -> None:
    apart = nodes.spec("apart", nodes=2, gpus=1)

    # the other node comes first, and waits
    other = nodes.start(apart, 1)
    first = nodes.start(apart, 0)

    assert first.wait(400) == 0, nodes.log(apart, 0)
    assert other.wait(60) == 0, nodes.log(apart, 1)
    assert [nodes.stored(apart, file) for file in FILES] == one_node
    assert nodes.steps(apart) == list(range(1, STEPS + 1))
    logs = {"rank-0", "rank-1", "supervisor", "launcher", "launcher-1"}
    assert {f"logs/attempt-1/{log}.log.gz" for log in logs} <= nodes.keys(apart)
    words = nodes.words(apart, 1)
    assert words is not None
    assert words.failure == "succeeded"


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_that_is_killed_comes_back_and_the_others_go_on_in_their_pods(
    nodes: Nodes, one_node: list[bytes], lost: int
) -> None:
    broken = nodes.spec("broken", nodes=2, gpus=1)
    running = [nodes.start(broken, node) for node in (0, 1)]
    wait_until(
        lambda: "checkpoints/step-000005/checkpoint.json" in nodes.keys(broken), seconds=300, what="a checkpoint in S3"
    )

    running[lost].send_signal(signal.SIGKILL)
    running[lost].wait()
    running[lost] = nodes.start(broken, lost, life="second")

    assert running[0].wait(400) == 0, nodes.log(broken, 0)
    assert running[1].wait(60) == 0, nodes.log(broken, 1)
    assert "going on from the checkpoint of step" in nodes.log(broken, 0, life="first" if lost else "second")
    assert [nodes.stored(broken, file) for file in FILES] == one_node
    assert nodes.steps(broken) == list(range(1, STEPS + 1))


def test_a_node_that_is_asked_to_stop_makes_the_run_write_a_checkpoint(nodes: Nodes) -> None:
    spec = nodes.spec("stopped", nodes=2, gpus=1, steps=400, saveSteps=300)
    running = [nodes.start(spec, node) for node in (0, 1)]
    wait_until(lambda: "[rank 0]" in nodes.log(spec, 0) or "step" in nodes.log(spec, 0), seconds=300, what="training")
    wait_until(lambda: " 10/400" in nodes.log(spec, 0), seconds=300, what="step 10")

    running[1].send_signal(signal.SIGTERM)

    assert running[1].wait(120) == 30, nodes.log(spec, 1)
    wait_until(
        lambda: any(key.endswith("checkpoint.json") for key in nodes.keys(spec)), seconds=60, what="a checkpoint in S3"
    )
    assert running[0].poll() is None, "node 0 goes on waiting for the other one"
    running[0].send_signal(signal.SIGTERM)
    assert running[0].wait(120) == 30, nodes.log(spec, 0)


@pytest.fixture
def started(nodes: Nodes) -> Callable[[Path], list[subprocess.Popen[bytes]]]:
    return lambda spec: [nodes.start(spec, node) for node in (0, 1)]


def test_wrong_data_ends_every_node_with_its_class(nodes: Nodes, tmp_path: Path, started: Any) -> None:
    spec = nodes.spec("wrong", nodes=2, gpus=1, steps=4)
    (tmp_path / "rows.json").write_text('[{"foo": 1}]')
    values = json.loads(spec.read_text())
    spec.write_text(json.dumps(values | {"data": {"source": str(tmp_path / "rows.json")}}))

    codes = [process.wait(60) for process in started(spec)]

    assert codes == [11, 11], nodes.log(spec, 0)
    for node in (0, 1):
        words = nodes.words(spec, node)
        assert words is not None
        assert words.failure == "data"
        assert words.hint
