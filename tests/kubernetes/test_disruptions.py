"""What happens to a run whose pod is deleted, evicted, killed, stopped, or that can never succeed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from whole_runs import TINY, Place, place

from lorajob_runtime.contract import kubernetes
from waiting import wait_until

__all__ = ["place"]

pytestmark = pytest.mark.slow


def test_deleted_evicted_suspended_and_resumed_a_run_ends_as_if_nothing_had_happened(place: Place) -> None:
    steps = 400
    place.submit_tiny("quiet", steps=steps)
    place.submit_tiny("moved", steps=steps)

    first = place.running_pod("moved")["metadata"]["name"]
    newest = place.wait_for_checkpoint("moved")
    place.kubectl("delete", "pod", first, "--wait=false")
    second = place.running_pod("moved", but=first)["metadata"]["name"]
    assert place.status("moved")["phase"] != "Failed"

    newest = place.wait_for_checkpoint("moved", after=newest + 5)
    failed_before = _failed(place, "moved")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": second}}
    path = f"/api/v1/namespaces/{place.namespace}/pods/{second}/eviction"
    place.cluster.run_kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    third = place.running_pod("moved", but=second)["metadata"]["name"]
    assert _failed(place, "moved") == failed_before, "an eviction is no failure"

    newest = place.wait_for_checkpoint("moved", after=newest + 5)
    assert place.lorajob("suspend", "moved").returncode == 0
    wait_until(lambda: not place.pods("moved"), seconds=90, what="the pod's end")
    assert place.status("moved")["phase"] == "Suspended"
    assert place.lorajob("resume", "moved").returncode == 0
    place.running_pod("moved", but=third)
    wait_until(lambda: place.status("moved")["phase"] == "Training", seconds=90, what="training after resuming")

    assert place.wait("quiet") == 0, place.lorajob("logs", "quiet").stdout
    assert place.wait("moved") == 0, place.lorajob("logs", "moved").stdout
    assert place.steps("moved") == list(range(1, steps + 1)), "each step once"
    assert place.stored("moved", "adapter/adapter_model.safetensors") == place.stored(
        "quiet", "adapter/adapter_model.safetensors"
    )


def test_a_killed_training_process_and_a_killed_container_are_tried_again_from_the_last_checkpoint(
    place: Place,
) -> None:
    steps = 300
    place.submit_tiny("killed", "--gpus=2", steps=steps)
    first = place.running_pod("killed")
    place.wait_for_checkpoint("killed")

    _kill(first, "lorajob_runtime.train")
    second = place.running_pod("killed", but=first["metadata"]["name"])
    newest = place.wait_for_checkpoint("killed", after=max(place.checkpoints("killed")))
    _kill(second, "tini")

    waiting = wait_until(
        lambda: (state := place.status("killed"))["phase"] == "Pending" and state, seconds=60, what="the back-off"
    )
    assert "attempt" in waiting["reason"]
    assert place.wait("killed") == 0, place.lorajob("logs", "killed").stdout
    assert place.steps("killed") == list(range(1, steps + 1))
    assert newest < steps, "it was killed in the middle"


def test_memory_that_runs_out_ends_the_run_at_once_with_its_class(place: Place) -> None:
    done = place.lorajob(
        *("submit", "--model=smollm2-135m", "--name=thirsty", "--yes", "--wait", "--gpus=2", "--memory=1600Mi"),
        *("--set=train.maxSteps=20", "--set=report.samples.count=0"),
    )

    assert done.returncode == 100, done.stderr
    status = place.status("thirsty")
    assert status["phase"] == "Failed"
    assert status["failure"]["class"] == "out-of-memory"
    assert status["failure"]["hint"]
    assert _failed(place, "thirsty") == 1, "no retry is burnt"


def test_wrong_data_ends_the_run_at_once_and_status_says_why(place: Place, tmp_path: Path) -> None:
    place.s3.client().put_object(Bucket=place.namespace, Key="rows.json", Body=b'[{"foo": 1}, {"foo": 2}]')
    settings = ["--set=train.maxSteps=4"]

    submitted = place.lorajob(
        *("submit", f"--model=hf:{TINY}", "--name=wrong", f"--data=s3://{place.namespace}/rows.json", "--wait"),
        *settings,
    )

    assert submitted.returncode == 100, submitted.stderr
    assert _failed(place, "wrong") == 1, "no retry is burnt"
    status = place.status("wrong")
    assert status["failure"]["class"] == "data"
    assert status["failure"]["exitCode"] == 11
    text = place.lorajob("status", "wrong").stdout
    assert status["failure"]["message"][:40] in text
    assert status["failure"]["hint"] in text
    listed = json.loads(place.lorajob("list", "-o", "json").stdout)
    (wrong,) = [item for item in listed["items"] if item["name"] == "wrong"]
    assert wrong["failure"]["class"] == "data", "the annotation tells it without the pod"


def test_a_field_that_the_images_version_does_not_know_ends_the_run_at_once(place: Place) -> None:
    done = place.lorajob("submit", f"--model=hf:{TINY}", "--name=newer", "--yes", "--dry-run=client", "-o", "json")
    job = json.loads(done.stdout)
    job = job["items"][0] if job["kind"] == "List" else job
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    annotations[kubernetes.SPEC_ANNOTATION] = json.dumps(
        json.loads(annotations[kubernetes.SPEC_ANNOTATION]) | {"train": {"warpSpeed": 9}}
    )
    place.kubectl("create", "-f", "-", input=json.dumps(job))

    assert place.wait("newer") == 100
    failure = place.status("newer")["failure"]
    assert failure["class"] == "config"
    assert "train.warpSpeed" in failure["message"]


def _failed(place: Place, name: str) -> int:
    """How many pods the Job controller counts as failures."""
    return int(json.loads(place.kubectl("get", "job", name, "-o", "json"))["status"].get("failed", 0))


def _kill(item: dict[str, Any], program: str) -> None:
    """SIGKILL for one process of a pod's container, found on this machine by its control group."""
    container = item["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_inside = container in (process / "cgroup").read_text()
            is_program = program in (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if is_inside and is_program:
            os.kill(int(process.name), signal.SIGKILL)
            return
    pytest.fail(f"no process {program} of container {container} on this machine")
