"""What a run's own token may do in the cluster: write the progress of its own Job, and nothing else."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from platform_install import install_platform

from cluster_fixtures import TestCluster
from lorajob.platform import platform_parsing
from lorajob.spec import spec_file
from lorajob.submit import manifest
from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract import spec as specs
from waiting import wait_until

RUNNER = "lorajob-runner"
NOWHERE = {"scheduling": {"nodeSelector": {"no-node": "has-this"}}}


@dataclass(frozen=True)
class Runner:
    """Speaks to the API server with the token of a run's pod."""

    server: str
    trust: ssl.SSLContext
    token: str
    namespace: str

    def call(self, method: str, path: str, body: Any = None, kind: str = "json") -> tuple[int, str]:
        """Status and message of one request."""
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": f"application/{kind}"},
        )
        try:
            with urllib.request.urlopen(request, context=self.trust, timeout=30) as answer:
                return int(answer.status), ""
        except urllib.error.HTTPError as error:
            return error.code, str(json.load(error)["message"])

    def patch(self, job: str, body: Any, *, kind: str = "merge", query: str = "", below: str = "") -> tuple[int, str]:
        """Status and message of a patch of a Job."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{job}{below}{query}"
        return self.call("PATCH", path, body, f"{kind}-patch+json")


def annotate(**annotations: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {f"lorajob.dev/{name}": value for name, value in annotations.items()}}}


@pytest.fixture(scope="module")
def runner(cluster: TestCluster, module_namespace: str) -> Runner:
    """The pod of run-a, of a platform whose policy is in force; run-a-b is another run of the same namespace."""
    install_platform(
        cluster,
        module_namespace,
        image="localhost/none:1",
        # the other policies would say the same of some of these changes
        values={"platform": NOWHERE, "users": {"enforceLimits": False}},
    )
    for name in ("run-a", "run-a-b"):
        cluster.run_kubectl("create", "-f", "-", input=json.dumps(_job(cluster, module_namespace, name)))
    (pod_name,) = wait_until(lambda: _pods(cluster, module_namespace, "run-a"), what="the pod of run-a")
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod_name}")
    found = _runner(cluster, module_namespace, *bound)
    harmless = annotate(other="1")
    wait_until(lambda: found.patch("run-a", harmless, query="?dryRun=All")[0] == 422, what="the policy")
    return found


@pytest.fixture(scope="module")
def module_namespace(cluster: TestCluster, _namespaces: list[str]) -> Iterator[str]:
    name = f"runner-policy-{secrets.token_hex(3)}"
    cluster.run_kubectl("create", "namespace", name)
    cluster.run_kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    cluster.run_kubectl("delete", "namespace", name, "--wait=false")
    _namespaces.append(name)


def _job(cluster: TestCluster, namespace: str, name: str) -> dict[str, Any]:
    """The Job of a run as the installed platform makes it."""
    text = cluster.run_kubectl(
        "get", "configmap", "lorajob-platform", f"--namespace={namespace}", "-o", r"jsonpath={.data.platform\.yaml}"
    )
    config = platform_parsing.parse(spec_file.loads(text, "platform.yaml").values, "platform.yaml")
    return manifest.build(specs.parse({"name": name}), config, namespace=namespace, version="0.1.0").job


def _pods(cluster: TestCluster, namespace: str, job: str) -> list[str]:
    selector = f"batch.kubernetes.io/job-name={job}"
    return cluster.run_kubectl(
        "get", "pods", f"--namespace={namespace}", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"
    ).split()


def _runner(cluster: TestCluster, namespace: str, *bound: str) -> Runner:
    token = cluster.run_kubectl("create", "token", RUNNER, f"--namespace={namespace}", *bound).strip()
    config = json.loads(cluster.run_kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    server = config["clusters"][0]["cluster"]
    trust = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    return Runner(server["server"], trust, token, namespace)


def test_a_run_writes_the_progress_of_its_own_job(runner: Runner) -> None:
    assert runner.patch("run-a", annotate(progress='{"step":1}')) == (200, "")


def test_a_run_writes_its_progress_by_a_json_patch_too(runner: Runner) -> None:
    runner.patch("run-a", annotate(progress="{}"))
    change = [{"op": "replace", "path": "/metadata/annotations/lorajob.dev~1progress", "value": '{"step":2}'}]

    assert runner.patch("run-a", change, kind="json") == (200, "")


def test_progress_may_have_as_many_bytes_as_a_run_writes(runner: Runner) -> None:
    assert runner.patch("run-a", annotate(progress="x" * kubernetes.PROGRESS_MAX_BYTES)) == (200, "")


ONLY_PROGRESS = "only the annotation lorajob.dev/progress, of at most 1024 bytes, may change"
ONLY_ANNOTATIONS = "nothing but annotations may change"
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "0a0b0c0d-0000-0000-0000-000000000000"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(annotate(version="evil"), ONLY_PROGRESS, id="another annotation"),
        pytest.param(annotate(version=None), ONLY_PROGRESS, id="another annotation removed"),
        pytest.param(annotate(cancelled="now"), ONLY_PROGRESS, id="a new annotation"),
        pytest.param(annotate(progress=None), ONLY_PROGRESS, id="progress removed"),
        pytest.param(annotate(progress="训" * 400), ONLY_PROGRESS, id="progress of too many bytes in few characters"),
        pytest.param(annotate(progress="x" * 1025), ONLY_PROGRESS, id="progress too long"),
        pytest.param(annotate(progress="训" * 342), ONLY_PROGRESS, id="progress too long in bytes, not in characters"),
        pytest.param({"metadata": {"managedFields": [{}]}}, ONLY_ANNOTATIONS, id="who wrote what"),
        pytest.param({"metadata": {"labels": {"a": "b"}}}, ONLY_ANNOTATIONS, id="a label"),
        pytest.param({"metadata": {"finalizers": ["a.b/c"]}}, ONLY_ANNOTATIONS, id="a finalizer"),
        pytest.param({"metadata": {"ownerReferences": [OWNER]}}, ONLY_ANNOTATIONS, id="an owner"),
        pytest.param({"spec": {"suspend": True}}, ONLY_ANNOTATIONS, id="suspended"),
        pytest.param({"spec": {"backoffLimit": 99}}, ONLY_ANNOTATIONS, id="more retries"),
        pytest.param({"spec": {"activeDeadlineSeconds": 10**9}}, ONLY_ANNOTATIONS, id="more time"),
        pytest.param({"spec": {"ttlSecondsAfterFinished": 1}}, ONLY_ANNOTATIONS, id="removed early"),
        pytest.param({"spec": {"parallelism": 0}}, ONLY_ANNOTATIONS, id="no pods"),
    ],
)
def test_a_run_changes_nothing_else_of_its_job(runner: Runner, change: dict[str, Any], reason: str) -> None:
    runner.patch("run-a", annotate(progress="{}"))

    status, message = runner.patch("run-a", change)

    assert (status, message.endswith(reason)) == (422, True), message


def test_a_run_writes_nothing_to_another_run(runner: Runner) -> None:
    status, message = runner.patch("run-a-b", annotate(progress="{}"))

    assert status == 422
    assert message.endswith("is not a pod of job run-a-b")


def test_a_token_that_is_no_pods_writes_nothing(cluster: TestCluster, runner: Runner) -> None:
    unbound = _runner(cluster, runner.namespace)

    status, message = unbound.patch("run-a", annotate(progress="{}"))

    assert status == 422
    assert message.endswith("pod  is not a pod of job run-a")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/apis/batch/v1/namespaces/{}/jobs/run-a"),
        ("GET", "/apis/batch/v1/namespaces/{}/jobs"),
        ("DELETE", "/apis/batch/v1/namespaces/{}/jobs/run-a"),
        ("GET", "/api/v1/namespaces/{}/secrets"),
        ("GET", "/api/v1/namespaces/{}/pods"),
        ("GET", "/api/v1/namespaces/{}/configmaps/lorajob-platform"),
    ],
)
def test_a_run_reads_and_removes_nothing(runner: Runner, method: str, path: str) -> None:
    status, _ = runner.call(method, path.format(runner.namespace))

    assert status == 403


def test_a_run_writes_no_status(runner: Runner) -> None:
    assert runner.patch("run-a", {"status": {"succeeded": 1}}, below="/status")[0] == 403


@pytest.mark.parametrize("kind", ["json", "apply-patch+yaml"])
def test_a_run_makes_no_other_run(cluster: TestCluster, runner: Runner, kind: str) -> None:
    jobs = f"/apis/batch/v1/namespaces/{runner.namespace}/jobs"
    new = _job(cluster, runner.namespace, "run-z")

    if kind == "json":
        status, message = runner.call("POST", jobs, new)
    else:
        status, message = runner.call("PATCH", f"{jobs}/run-z?fieldManager=x", new, kind)

    assert status == 403, message


def test_a_run_writes_nothing_in_another_namespace(runner: Runner) -> None:
    elsewhere = Runner(runner.server, runner.trust, runner.token, "default")

    assert elsewhere.patch("run-a", annotate(progress="{}"))[0] == 403
