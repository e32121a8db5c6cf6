"""Every golden run, sent to a real API server: accepted as it stands, without a word of warning."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_fixtures import TestCluster
from golden import run_manifests
from lorajob.platform import platform_parsing
from lorajob.submit import manifest
from lorajob.submit.manifest import DataFile
from lorajob_runtime.contract import spec as specs
from waiting import wait_until

PRIORITY_CLASS = "lorajob-urgent"


@pytest.fixture
def watched_namespace(cluster: TestCluster, namespace: str) -> str:
    """A namespace that refuses pods outside of the restricted profile, and warns of what would make such pods."""
    cluster.run_kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    cluster.run_kubectl("create", "serviceaccount", "lorajob-runner", f"--namespace={namespace}")
    return namespace


@pytest.fixture(scope="module")
def _priority_class(cluster: TestCluster) -> Iterator[None]:
    made = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": PRIORITY_CLASS},
        "value": 1000,
    }
    cluster.run_kubectl("apply", "-f", "-", input=json.dumps(made))
    yield
    cluster.run_kubectl("delete", "priorityclass", PRIORITY_CLASS)


def dry_run(cluster: TestCluster, *objects: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What the server would make of the objects, and all that it says besides. Fails the test when it refuses one."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}"]
    command += ["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"]
    done = subprocess.run(command, input=listed, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(_documents(done.stdout)), done.stderr


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects one after another, as kubectl prints several."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        found, at = decoder.raw_decode(text, at)
        yield found
        at += 1


@pytest.mark.usefixtures("_priority_class")
@pytest.mark.parametrize("name", run_manifests.RUNS)
def test_the_server_takes_a_golden_run_without_a_warning(
    cluster: TestCluster, watched_namespace: str, name: str
) -> None:
    manifests = run_manifests.build(name, watched_namespace)

    accepted, said = dry_run(cluster, *manifests.all())

    assert said == ""
    assert [each["kind"] for each in accepted] == [each["kind"] for each in manifests.all()]
    sent, kept = manifests.job["spec"]["template"], accepted[0]["spec"]["template"]
    assert kept["metadata"]["annotations"] == sent["metadata"]["annotations"]


@pytest.mark.usefixtures("_priority_class")
@pytest.mark.parametrize("name", run_manifests.RUNS)
def test_the_server_takes_the_pods_of_a_golden_run_under_the_restricted_profile(
    cluster: TestCluster, watched_namespace: str, name: str
) -> None:
    template = run_manifests.build(name, watched_namespace).job["spec"]["template"]
    meta = {**template["metadata"], "name": f"{name}-0-abcde", "namespace": watched_namespace}

    (accepted,), said = dry_run(cluster, {"apiVersion": "v1", "kind": "Pod", **template, "metadata": meta})

    assert said == ""
    assert accepted["spec"]["securityContext"]["runAsNonRoot"] is True


def test_a_warning_of_the_server_would_be_seen(cluster: TestCluster, watched_namespace: str) -> None:
    job = run_manifests.build("one-node", watched_namespace).job
    del job["spec"]["template"]["spec"]["containers"][0]["securityContext"]

    _, said = dry_run(cluster, job)

    assert 'would violate PodSecurity "restricted:latest"' in said


def test_a_config_map_takes_the_largest_dataset_that_the_manifest_takes(cluster: TestCluster, namespace: str) -> None:
    data = DataFile(name="poems.json.gz", content=os.urandom(manifest.DATA_MAX_BYTES))
    spec, config = specs.parse({"name": "poems"}), platform_parsing.parse(run_manifests.PLATFORM, "platform.yaml")
    (config_map,) = manifest.build(spec, config, namespace=namespace, version="0.1.0", data=data).owned

    cluster.run_kubectl("create", "-f", "-", input=json.dumps(config_map))

    kept = json.loads(cluster.run_kubectl("get", "configmap/poems-data", f"--namespace={namespace}", "-o", "json"))
    assert kept["binaryData"] == config_map["binaryData"]


def test_a_run_on_the_cpu_gets_a_pod_where_there_is_no_gpu_to_have(
    cluster: TestCluster, watched_namespace: str
) -> None:
    none = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    none["spec"] = {"hard": {"requests.nvidia.com/gpu": "0"}}  # type: ignore[assignment]
    cluster.run_kubectl("create", f"--namespace={watched_namespace}", "-f", "-", input=json.dumps(none))
    for name, device in (("with", "auto"), ("without", "cpu")):
        config = specs.merge(run_manifests.PLATFORM, {"device": device, "scheduling": {"nodeSelector": {"no": "node"}}})
        spec = specs.parse({"name": name, "resources": {"gpus": 4}})
        made = manifest.build(spec, platform_parsing.parse(config, "x"), namespace=watched_namespace, version="0.1.0")
        cluster.run_kubectl("create", "-f", "-", input=json.dumps(made.job))

    def seen(what: str) -> str:
        return cluster.run_kubectl("get", what, f"--namespace={watched_namespace}", "-o", "json")

    wait_until(lambda: "exceeded quota: none" in seen("events"), what="the refusal of a pod with GPUs")
    (pod,) = wait_until(lambda: json.loads(seen("pods"))["items"], what="a pod without GPUs")
    assert pod["metadata"]["name"].startswith("without-0-")
    assert "nvidia.com/gpu" not in json.dumps(pod["spec"]["containers"])


def test_a_manifest_that_is_applied_again_leaves_to_a_queue_whether_its_run_is_suspended(
    cluster: TestCluster, watched_namespace: str
) -> None:
    job = run_manifests.build("kueue-queue", watched_namespace).job
    apply = ("apply", f"--namespace={watched_namespace}", "-f", "-")

    def suspended(change: bool | None = None) -> str:
        if change is not None:
            patch = json.dumps({"spec": {"suspend": change}})
            # as Kueue's webhook does when the Job is created, and its controller when the turn has come
            cluster.run_kubectl("patch", "job/kueue-queue", f"--namespace={watched_namespace}", f"--patch={patch}")
        path = "jsonpath={.spec.suspend}"
        return cluster.run_kubectl("get", "job/kueue-queue", f"--namespace={watched_namespace}", "-o", path)

    for options in ((), ("--server-side", "--force-conflicts")):
        cluster.run_kubectl(*apply, *options, input=json.dumps(job))
        assert suspended(True) == "true"
        cluster.run_kubectl(*apply, *options, input=json.dumps(job))
        assert suspended() == "true"
        assert suspended(False) == "false"
        cluster.run_kubectl(*apply, *options, input=json.dumps(job))
        assert suspended() == "false"
