"""Why a run waits, for real: the scheduler, the kubelet, quotas and admission say it in places of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from made_runs import NOWHERE, MadeRuns, lorajob, made, now

from calling import Call

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]


def reason(lorajob: Call, name: str) -> str:
    shown = json.loads(lorajob("status", name, "-o", "json").out)
    assert shown["phase"] == "Pending"
    return str(shown["reason"])


def test_more_gpus_than_there_are(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    resources = {"limits": {"nvidia.com/gpu": "999"}}
    made.live("first", container={"resources": resources})

    wait_until(lambda: "Insufficient nvidia.com/gpu" in reason(lorajob, "first"), what="the scheduler's reason")

    said = reason(lorajob, "first")
    assert said.startswith("not scheduled: 0/")
    assert "preemption" not in said


def test_of_two_nodes_the_one_that_no_node_takes_keeps_both_waiting(
    made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    """The first pod runs and reports that it trains, as it does from the moment it could."""
    job = made.run("first", nodes=2)
    first = made.pod(job, {"running": {"startedAt": now()}}, phase="Running")
    made.pod(job, None, node=1)
    made.start("first", ready=1, active=2)
    made.report("first", first, "train", step=3, total_steps=9, loss=1.5)

    wait_until(lambda: "not scheduled" in reason(lorajob, "first"), what="the scheduler's reason")

    [listed] = json.loads(lorajob("list", "-o", "json").out)["items"]
    said = reason(lorajob, "first")
    assert said.startswith("pod 1 is not scheduled: 0/")
    assert said.endswith("(1 of 2 pods are running)")
    assert (listed["phase"], listed["progress"] and listed["progress"]["isCurrent"]) == ("Pending", False)


def test_an_eviction_is_called_one_and_is_no_attempt_more(
    made: MadeRuns, lorajob: Call, image: str, wait_until: Wait
) -> None:
    made.live("moved", container={"image": image, "command": ["python", "-c", "import time; time.sleep(600)"]})

    def running() -> list[str]:
        pods = made.client.pages(made.client.pods(), labelSelector="lorajob.dev/run=moved")
        return [each["metadata"]["name"] for each in pods if each["status"]["phase"] == "Running"]

    wait_until(running, seconds=60, what="its pod")
    [name] = running()
    made.report("moved", name, "train", step=3, total_steps=9, loss=1.5)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    made.client.post(f"{made.client.pods(name)}/eviction", eviction)
    seen: list[dict[str, Any]] = []

    def is_replaced() -> bool:
        seen.append(json.loads(lorajob("status", "moved", "-o", "json").out))
        return bool(running()) and name not in running()

    wait_until(is_replaced, seconds=90, what="the pod in its place")

    assert {each["attempts"] for each in seen} == {1}
    told = [each["reason"] for each in seen if "evicted, as when its node is drained" in each["reason"]]
    assert told, [each["reason"] for each in seen]
    assert all("does not count" in each for each in told)
    assert not [each for each in seen if "failed" in each["reason"]]


def test_an_image_that_is_not_there(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    made.live("first", container={"image": "registry.invalid/none:1", "imagePullPolicy": "Always"})

    wait_until(lambda: "can't be pulled" in reason(lorajob, "first"), seconds=60, what="the kubelet's reason")

    said = reason(lorajob, "first")
    assert said.startswith("the image registry.invalid/none:1 can't be pulled (")
    assert "registry.invalid" in said.partition("): ")[2], "the cause, that no such host is there"
    assert "failed to pull and unpack" not in said


def test_a_secret_that_is_not_there(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    made.live("first", container={"envFrom": [{"secretRef": {"name": "absent"}}]})

    wait_until(lambda: "absent" in reason(lorajob, "first"), seconds=60, what="the kubelet's reason")

    assert reason(lorajob, "first") == 'CreateContainerConfigError: secret "absent" not found'


def test_a_dataset_that_is_not_there(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    volumes = [{"name": "data", "configMap": {"name": "absent"}}]
    mounts = [{"name": "data", "mountPath": "/etc/lorajob/data"}]
    made.live("first", container={"volumeMounts": mounts}, pod={"volumes": volumes})

    wait_until(lambda: "absent" in reason(lorajob, "first"), seconds=60, what="the event of the pod")

    assert reason(lorajob, "first") == 'MountVolume.SetUp failed for volume "data" : configmap "absent" not found'


def test_a_quota_that_does_not_allow_its_pods(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
    }
    made.client.post(f"/api/v1/namespaces/{made.client.namespace}/resourcequotas", quota)
    made.live("first", container={"resources": {"limits": {"nvidia.com/gpu": "8"}}})

    wait_until(lambda: "quota" in reason(lorajob, "first"), what="the event of the Job")

    said = reason(lorajob, "first")
    assert said.startswith("its pods can't be created: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8")


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ({"hostNetwork": True}, 'violates PodSecurity "restricted:latest": host namespaces'),
        ({"serviceAccountName": "absent"}, 'serviceaccount "absent" not found'),
    ],
    ids=["PodSecurity", "ServiceAccount"],
)
def test_pods_that_admission_refuses(
    pod: dict[str, Any], said: str, made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    made.live("first", pod=pod)

    wait_until(lambda: said in reason(lorajob, "first"), what="the event of the Job")

    assert reason(lorajob, "first").startswith("its pods can't be created: ")


def test_between_two_attempts_a_run_says_how_the_last_one_ended(
    made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    made.live("first", container={"command": ["/not-there"]})

    wait_until(lambda: "attempt 1 failed" in reason(lorajob, "first"), seconds=60, what="the first failure")

    said = reason(lorajob, "first")
    assert "the next starts soon, 2 of 3 retries left after it" in said
    assert "/not-there" in said


def test_the_report_of_a_pod_that_was_killed_is_not_that_of_the_next(
    made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    def listed() -> dict[str, Any]:
        return dict(json.loads(lorajob("list", "-o", "json").out)["items"][0])

    def pods() -> set[str]:
        return {each["metadata"]["name"] for each in made.client.get(made.client.pods())["items"]}

    made.live("first", pod={"nodeSelector": NOWHERE})
    (first,) = wait_until(pods, what="the pod")
    made.set_pod(first, {"running": {"startedAt": now()}}, "Running")
    wait_until(lambda: listed()["phase"] == "Preparing", what="its start")
    made.report("first", first, step=1, total_steps=4)
    training = listed()

    killed = {"exitCode": 137, "reason": "Error", "startedAt": now(), "finishedAt": now()}
    made.set_pod(first, {"terminated": killed}, "Failed")
    wait_until(lambda: listed()["phase"] == "Pending", what="its end")
    between = reason(lorajob, "first")
    (second,) = wait_until(lambda: pods() - {first}, seconds=60, what="the next pod")
    made.set_pod(second, {"running": {"startedAt": now()}}, "Running")
    wait_until(lambda: listed()["phase"] == "Preparing", what="its start")
    again = listed()

    assert (training["phase"], training["progress"]["pod"]) == ("Training", first)
    assert between.startswith("attempt 1 failed (killed: the container was killed (SIGKILL)); the next starts soon")
    assert (again["progress"], again["attempts"]) == (None, 2)
    assert json.loads(lorajob("status", "first", "-o", "json").out)["progress"] is None
