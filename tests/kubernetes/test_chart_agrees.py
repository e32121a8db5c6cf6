"""Helm takes exactly the values that a submit can use: chart, command line and API server are asked alike."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml
from platform_install import CHART, RELEASE, run_helm

from cluster_fixtures import TestCluster
from lorajob.errors import UsageError
from lorajob.platform import platform_parsing
from lorajob.submit import manifest
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
NEEDED = {"image": "registry.example.org/lorajob:0.1.0", "storage": {"uri": "s3://bucket/prefix"}}
LONG = "a" * 64


def resources(**values: Any) -> dict[str, Any]:
    return {"resources": values}


def scheduling(**values: Any) -> dict[str, Any]:
    return {"scheduling": values}


def toleration(**values: Any) -> dict[str, Any]:
    return scheduling(tolerations=[values])


def defaults(limits: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return {"defaults": values, "limits": limits or {}}


TAKEN: list[dict[str, Any]] = [
    {},
    {"image": "lorajob"},
    {"image": "localhost:5000/team/lorajob"},
    {"image": f"registry.example.org/a/b_c/lorajob:v1.0@sha256:{'0' * 64}"},
    {"storage": {"uri": "s3://my-bucket.of.mine"}},
    {"storage": {"uri": "s3://models/fine tuning/ü", "region": "eu-central-1", "endpoint": "http://10.0.0.1:9000"}},
    resources(cpuPerGpu=0.5, memoryPerGpu="1.5Gi", gpuMemory="80G", sharedMemory="1Mi", work="1T"),
    resources(cpuPerGpu="250m", memoryPerGpu="64000000k"),
    scheduling(gpuResource="amd.com/gpu", gpuTypes={"a100": {"gpu": "A100_80.x", "b.c/d": ""}}),
    scheduling(nodeSelector={"pool": "training", "node.example.org/x": "1"}, topologyKey="rack"),
    scheduling(runtimeClassName="nvidia", topologyKey="topology.kubernetes.io/zone"),
    toleration(key="a/b", operator="Equal", value="c", effect="NoSchedule"),
    toleration(key="a", operator="Exists", effect="NoExecute", tolerationSeconds=30),
    toleration(operator="Exists"),
    toleration(key="a", value="b"),
    {"limits": {"timeout": "90m", "gpus": 1, "nodes": 1, "retries": 0, "trustRemoteCode": True}},
    {"secrets": {"storage": "a.b-c", "swanlab": "s"}, "imagePullSecrets": ["registry"]},
    defaults(resources={"gpus": 8, "nodes": 2, "timeout": "24h", "retries": 2, "cpu": "4", "memory": "8Gi"}),
    defaults(
        {"gpus": 8, "nodes": 2, "retries": 1, "timeout": "1d"}, resources={"gpus": 4, "nodes": 2, "timeout": "24h"}
    ),
    defaults(resources={"queue": "research", "priority": "a.b"}, report={"swanlab": {"project": "team-a"}}),
    defaults(data={"rows": ":5", "evalRows": "-100:", "columns": {"input": "question"}, "maxDropped": "2.5%"}),
    defaults(train={"warmup": 0.5, "epochs": 0.5}, storage={"uri": "s3://another/place"}),
    defaults({"trustRemoteCode": True}, model={"trustRemoteCode": True, "revision": "0123abc", "name": "hf:a/b"}),
    defaults({"retries": None, "gpus": None}, resources={"retries": 3, "gpus": 8}),
    defaults({"retries": 1}, resources={"gpuType": None, "timeout": None}),
    {"keepFinished": "12h", "gracePeriodSeconds": 1},
    {"stallAfter": "1m", "storage": {"patience": "7d"}},
    {"stallAfter": "168h", "storage": {"patience": "60s"}},
    {"stallAfter": None, "storage": {"patience": None}},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image": "https://registry/lorajob:1"}, "platform.image"),
    ({"image": "two words"}, "platform.image"),
    ({"image": "lorajob:"}, "platform.image"),
    ({"image": "Registry/Lorajob"}, "platform.image"),
    ({"storage": {"uri": "s3://b"}}, "platform.storage.uri"),
    ({"storage": {"uri": "my-bucket/lora"}}, "platform.storage.uri"),
    ({"storage": {"uri": "/x"}}, "platform.storage.uri"),
    ({"storage": {"uri": "s3://Bucket/x"}}, "platform.storage.uri"),
    ({"storage": {"region": "eu west"}}, "platform.storage.region"),
    ({"storage": {"endpoint": "s3:9000"}}, "platform.storage.endpoint"),
    ({"storage": {"endpoint": "ftp://s3"}}, "platform.storage.endpoint"),
    ({"hubEndpoints": {"hf": "hf.mirror"}}, "platform.hubEndpoints.hf"),
    ({"hubEndpoints": {"modelscope": "http://a b"}}, "platform.hubEndpoints.modelscope"),
    ({"swanlab": {"host": "swanlab"}}, "platform.swanlab.host"),
    ({"serviceAccount": "Runner"}, "platform.serviceAccount"),
    ({"cache": {"claim": "a..b"}}, "platform.cache.claim"),
    ({"secrets": {"hub": "my_secret"}}, "platform.secrets.hub"),
    ({"secrets": {"swanlab": "-a"}}, "platform.secrets.swanlab"),
    ({"imagePullSecrets": ["a", "B"]}, "platform.imagePullSecrets[1]"),
    ({"keepFinished": "1w"}, "platform.keepFinished"),
    ({"stallAfter": "59s"}, "platform.stallAfter"),
    ({"stallAfter": "0m"}, "platform.stallAfter"),
    ({"stallAfter": "1800"}, "platform.stallAfter"),
    ({"stallAfter": 1800}, "platform.stallAfter"),
    ({"stallAfter": "604801s"}, "platform.stallAfter"),
    ({"stallAfter": f"{10**20}s"}, "platform.stallAfter"),
    ({"storage": {"patience": "30s"}}, "platform.storage.patience"),
    ({"storage": {"patience": "8d"}}, "platform.storage.patience"),
    ({"storage": {"patience": "2 h"}}, "platform.storage.patience"),
    ({"storage": {"patience": ""}}, "platform.storage.patience"),
    (resources(gpuMemory="80GB"), "platform.resources.gpuMemory"),
    (resources(gpuMemory="80"), "platform.resources.gpuMemory"),
    (resources(memoryPerGpu="0Gi"), "platform.resources.memoryPerGpu"),
    (resources(memoryPerGpu="64GB"), "platform.resources.memoryPerGpu"),
    (resources(memoryPerGpu="-1Gi"), "platform.resources.memoryPerGpu"),
    (resources(cpuPerGpu="0"), "platform.resources.cpuPerGpu"),
    (resources(cpuPerGpu="four"), "platform.resources.cpuPerGpu"),
    (resources(sharedMemory="1m"), "platform.resources.sharedMemory"),
    (resources(sharedMemory="1023Ki"), "platform.resources.sharedMemory"),
    (resources(work="5"), "platform.resources.work"),
    (scheduling(gpuResource="gpu"), "platform.scheduling.gpuResource"),
    (scheduling(gpuResource="nvidia gpu"), "platform.scheduling.gpuResource"),
    (scheduling(gpuResource="nvidia.com/"), "platform.scheduling.gpuResource"),
    (scheduling(gpuResource="kubernetes.io/gpu"), "platform.scheduling.gpuResource"),
    (scheduling(runtimeClassName="NVIDIA"), "platform.scheduling.runtimeClassName"),
    (scheduling(topologyKey="a b c"), "platform.scheduling.topologyKey"),
    (scheduling(topologyKey="a/b/c"), "platform.scheduling.topologyKey"),
    (scheduling(nodeSelector={"a b": "c"}), "platform.scheduling.nodeSelector"),
    (scheduling(nodeSelector={LONG: "c"}), "platform.scheduling.nodeSelector"),
    (scheduling(nodeSelector={"a": "c d"}), "platform.scheduling.nodeSelector.a"),
    (scheduling(gpuTypes={"h200": {"/x": "y"}}), "platform.scheduling.gpuTypes.h200"),
    (scheduling(gpuTypes={"h200": {"x": LONG}}), "platform.scheduling.gpuTypes.h200.x"),
    (toleration(key="a", operator="Exists", tolerationSeconds=30), "tolerations[0].tolerationSeconds"),
    (toleration(key="a", effect="NoSchedule", tolerationSeconds=30), "tolerations[0].tolerationSeconds"),
    (toleration(key="a", operator="Exists", value="b"), "tolerations[0].value"),
    (toleration(value="b"), "tolerations[0] has no key"),
    (toleration(key="a b", operator="Exists"), "tolerations[0].key"),
    (toleration(key="a", value="b c"), "tolerations[0].value"),
    ({"limits": {"timeout": "a week"}}, "platform.limits.timeout"),
    (defaults(name="one"), "platform.defaults.name"),
    (defaults(resources={"gpus": 0}), "gpus"),
    (defaults(resources={"gpus": 65}), "gpus"),
    (defaults(resources={"nodes": 0}), "nodes"),
    (defaults(resources={"retries": -1}), "retries"),
    (defaults(resources={"timeout": "1w"}), "platform.defaults.resources.timeout"),
    (defaults(resources={"timeout": "8d"}), "platform.defaults.resources.timeout"),
    (defaults({"gpus": 4}, resources={"gpus": 8}), "platform.defaults.resources.gpus"),
    (defaults({"gpus": 4}, resources={"gpus": 4, "nodes": 2}), "platform.defaults.resources.gpus"),
    (defaults({"nodes": 1}, resources={"nodes": 2}), "platform.defaults.resources.nodes"),
    (defaults({"retries": 0}, resources={"retries": 1}), "platform.defaults.resources.retries"),
    (defaults(resources={"gpuType": "h200"}), "platform.defaults.resources.gpuType"),
    (defaults(resources={"queue": "My Queue"}), "platform.defaults.resources.queue"),
    (defaults(resources={"priority": "High"}), "platform.defaults.resources.priority"),
    (defaults(resources={"cpu": "0"}), "platform.defaults.resources.cpu"),
    (defaults(resources={"memory": "64"}), "platform.defaults.resources.memory"),
    (defaults(resources={"memory": "64GB"}), "platform.defaults.resources.memory"),
    (defaults(storage={"uri": "/x"}), "platform.defaults.storage.uri"),
    (defaults(storage={"uri": "s3://"}), "platform.defaults.storage.uri"),
    (defaults(data={"rows": "5"}), "platform.defaults.data.rows"),
    (defaults(data={"maxDropped": "5"}), "platform.defaults.data.maxDropped"),
    (defaults(data={"columns": {"question": "input"}}), "platform.defaults.data.columns"),
    (defaults(data={"source": "s3://bucket"}), "platform.defaults.data.source"),
    (defaults(model={"name": ""}), "platform.defaults.model.name"),
    (defaults(model={"trustRemoteCode": True, "revision": "0123abc"}), "platform.defaults.model.trustRemoteCode"),
    (defaults({"trustRemoteCode": True}, model={"trustRemoteCode": True}), "platform.defaults.model.trustRemoteCode"),
    (defaults(train={"warmup": 1.5}), "platform.defaults.train.warmup"),
    (defaults(lora={"rank": 0}), "rank"),
    (defaults(report={"swanlab": {"project": "a b"}}), "platform.defaults.report.swanlab.project"),
]


def helm(cluster: TestCluster, given: dict[str, Any]) -> str:
    """What Helm says against values of the platform; empty when it takes them."""
    values = {"platform": specs.merge(NEEDED, given)}
    done = run_helm(cluster, "default", "template", RELEASE, str(CHART), "--values=-", values=values)
    assert (done.returncode == 0) is (done.stderr == ""), done.stderr
    return done.stderr


def build(given: dict[str, Any]) -> manifest.Manifests:
    """The objects of a run of whose spec its user said nothing. Raises ConfigError, UsageError."""
    config = platform_parsing.parse(specs.merge(VALUES["platform"], NEEDED, given), "values.yaml")
    spec = specs.parse(specs.merge(config.defaults, {"name": "poems"}))
    return manifest.build(spec, config, namespace="default", version="0.1.0")


@pytest.mark.parametrize("given", TAKEN, ids=str)
def test_values_that_helm_takes_make_a_run_that_the_server_takes(cluster: TestCluster, given: dict[str, Any]) -> None:
    assert helm(cluster, given) == ""

    job = build(given).job
    # of an object that is not there
    job["spec"]["template"]["spec"].pop("priorityClassName", None)
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", "create", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=json.dumps(job), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("given", "place"), REFUSED, ids=str)
def test_values_that_no_submit_can_use_are_refused_by_helm_with_their_place(
    cluster: TestCluster, given: dict[str, Any], place: str
) -> None:
    with pytest.raises((ConfigError, UsageError)):
        build(given)

    said = helm(cluster, given)
    [line] = [line for line in said.splitlines() if line.startswith("- ")]
    assert place in line.replace("/", ".") or place in line
    assert "does not match pattern" not in line


def test_every_wrong_value_is_named_at_once(cluster: TestCluster) -> None:
    wrong = {"image": "a b", "resources": {"work": "5"}, "secrets": {"hub": "A"}}

    said = helm(cluster, wrong)

    assert 'platform.image is "a b": it must be an image like registry.example/lorajob:0.1.0' in said
    assert 'platform.resources.work is "5": it must be a size of at least 1Mi, like 64Gi' in said
    assert 'platform.secrets.hub is "A": it must be the name of a Kubernetes object' in said
