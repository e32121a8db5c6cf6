"""From a dataset to an adapter on a real cluster, on one node and on two; and `lorajob run` makes the same one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load
from whole_runs import Place, place

import dataset_files
from dataset_files import FORMS
from lorajob_runtime.contract import kubernetes, spec
from lorajob_runtime.data.prepare import prepare
from small_models import smollm2

__all__ = ["place"]

pytestmark = pytest.mark.slow

SHARED_DATA = Path(__file__).parents[3] / "shared/data/huanhuan-100.json"
SHIPPED_DATA = Path(__file__).parents[2] / "job/lorajob_runtime/data/examples/lighthouse.json"
DATA = SHARED_DATA if SHARED_DATA.exists() else SHIPPED_DATA

SETTINGS = ["data.rows=:80", "train.batchSize=1", "train.gradientAccumulation=2", "train.maxSteps=6"]
# in bf16 a processor's units for it round otherwise with another number of threads, which a node of its own has
SETTINGS += [
    "train.precision=fp32",
    "train.saveSteps=3",
    "train.loggingSteps=1",
    "report.samples.count=1",
    "report.samples.maxNewTokens=4",
]
SETS = [f"--set={setting}" for setting in SETTINGS]


@pytest.fixture(scope="module")
def watched(place: Place) -> list[dict[str, object]]:
    """The states that `submit --watch` showed of a run on one node with two GPUs, from nothing cached to its end."""
    done = place.lorajob(
        *("submit", "--model=smollm2-135m", "--gpus=2", f"--data={DATA}", "--name=one-node", "--yes"),
        *("--watch", "-o", "json", *SETS),
        seconds=600,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dataset_becomes_an_adapter_with_every_checkpoint_in_storage(
    place: Place, watched: list[dict[str, object]]
) -> None:
    keys = place.keys("one-node")

    assert {"spec.json", "events.jsonl", "adapter/adapter_model.safetensors", "adapter/README.md"} <= keys
    for step in (3, 6):
        assert f"checkpoints/step-{step:06d}/checkpoint.json" in keys
    assert place.steps("one-node") == [1, 2, 3, 4, 5, 6]
    assert {f"logs/attempt-1/{log}.log.gz" for log in ("rank-0", "rank-1", "supervisor")} <= keys
    assert any(key.startswith("swanlog/run-") for key in keys), "the offline run of SwanLab is kept"


def test_watching_shows_the_phases_in_their_order_and_the_end(watched: list[dict[str, object]]) -> None:
    seen = [phase for phase, _ in itertools.groupby(str(state["phase"]) for state in watched)]

    # a container that has not said what it does yet prepares it
    order = iter(["Pending", "Preparing", *kubernetes.PHASES.values(), "Succeeded"])
    assert all(phase in order for phase in seen), f"{seen} goes back"
    assert {"Pending", "Training", "Succeeded"} <= set(seen)
    assert seen[-1] == "Succeeded"


def test_weights_are_downloaded_once_for_all_runs(place: Place, watched: list[dict[str, object]]) -> None:
    downloads = [request for request in place.hub.asked if "safetensors" in request.path]

    assert downloads, "the first run's pod downloaded them"
    claim = json.loads(place.kubectl("get", "persistentvolumeclaims", "-o", "json"))["items"][0]
    assert claim["status"]["phase"] == "Bound"

    place.hub.asked.clear()
    done = place.lorajob(
        *("submit", "--model=smollm2-135m", "--gpus=1", "--name=second", "--yes", "--wait"),
        *(*SETS, "--set=train.maxSteps=1"),
    )

    assert done.returncode == 0, done.stderr
    assert not [request for request in place.hub.asked if "safetensors" in request.path]


def test_logs_of_every_rank_are_there_while_the_pod_is_and_after(
    place: Place, watched: list[dict[str, object]]
) -> None:
    alive = place.lorajob("logs", "one-node")
    place.kubectl("delete", "pods", "-l", f"{kubernetes.RUN_LABEL}=one-node")
    gone = place.lorajob("logs", "one-node", "--rank", "1")

    assert alive.returncode == 0, alive.stderr
    assert "[rank 0]" in alive.stdout
    assert "[rank 1]" in alive.stdout
    assert "checkpoint of step 6 is in storage" in alive.stdout
    assert gone.returncode == 0, gone.stderr
    assert gone.stdout.strip()
    assert place.status("one-node")["phase"] == "Succeeded"


def test_two_nodes_and_one_machine_make_the_same_adapter(
    place: Place, watched: list[dict[str, object]], tmp_path: Path
) -> None:
    submitted = place.lorajob(
        *("submit", "--model=smollm2-135m", "--gpus=1", "--nodes=2", f"--data={DATA}", "--name=two-nodes", "--yes"),
        *("--wait", *SETS),
        seconds=600,
    )
    assert submitted.returncode == 0, submitted.stderr + place.lorajob("logs", "two-nodes").stdout
    command = [sys.executable, "-m", "lorajob", "run", "--model=smollm2-135m", f"--model-source={smollm2()[0].path}"]
    here = subprocess.run(
        [*command, "--processes=2", f"--data={DATA}", "--name=here", *SETS, "--swanlab-mode=disabled"],
        cwd=tmp_path,
        env=os.environ | {"LORAJOB_DEVICE": "cpu"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert here.returncode == 0, here.stderr

    expected = load((tmp_path / "runs/here/adapter/adapter_model.safetensors").read_bytes())
    one, two = (load(place.stored(name, "adapter/adapter_model.safetensors")) for name in ("one-node", "two-nodes"))
    assert one.keys() == two.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_allclose(one[tensor], values, atol=1e-4, rtol=1e-3, err_msg=tensor)
    # a node of its own has all cores for its one process: sums over other numbers of threads are rounded otherwise, and
    # where a gradient is next to nothing Adam makes a whole step of that; matrices B began as zeros
    learned = sum(float(np.square(values).sum()) for tensor, values in expected.items() if "lora_B" in tensor)
    apart = sum(float(np.square(two[tensor] - values).sum()) for tensor, values in expected.items())
    assert apart < 1e-4 * learned
    losses = [event["loss"] for event in place.events("two-nodes") if event["event"] == "step"]
    assert losses == pytest.approx(
        [event["loss"] for event in place.events("one-node") if event["event"] == "step"], rel=1e-3
    )


def test_files_of_every_kind_are_trained_on_in_pods_as_they_are_here(place: Place, tmp_path: Path) -> None:
    kinds = {"csv": "alpaca", "tsv-gz": "messages", "parquet": "sharegpt", "json-gz": "qa"}
    for name, form in kinds.items():
        (tmp_path / name).mkdir()
        data = dataset_files.write(name.replace("-", "."), FORMS[form], tmp_path / name)
        place.submit_tiny(name, f"--data={data}", steps=1)

    for name, form in kinds.items():
        assert place.wait(name) == 0, place.lorajob("logs", name).stdout
        data = dataset_files.write("json", FORMS[form], tmp_path / name)
        run = spec.parse({"data": {"source": str(data)}})
        expected = prepare(run, model_path=smollm2()[0].path, folder=tmp_path / name / "expected")
        (report,) = (each for each in place.events(name) if each["event"] == "report" and each["name"] == "data")
        assert (report["format"], report["rows_used"], report["fingerprint"]) == (form, 2, expected.fingerprint)
        assert place.steps(name) == [1]
        assert "adapter/adapter_model.safetensors" in place.keys(name)
