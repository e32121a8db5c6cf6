"""A real Kubernetes for tests: the one that LORAJOB_TEST_KUBECONFIG names, else the project's own (tests/cluster).

What tests brought up they take down, but for LORAJOB_TEST_CLUSTER_KEEP and for what another test run still uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import small_models
from cluster import builder, lifecycle, places
from fakes.hub_server import HubServer
from s3_servers import S3Server, seaweedfs
from waiting import wait_until


@dataclass(frozen=True)
class TestCluster:
    """A cluster's administrator: kubeconfig, kubectl, and the address at which pods reach servers on this machine."""

    __test__ = False

    kubeconfig: Path
    kubectl: Path
    host_ip: str

    @property
    def helm(self) -> Path:
        """The Helm beside kubectl or on PATH; skips the test where there is none."""
        return _program("helm", self.kubectl.parent, self.kubectl.resolve().parent, places.default().programs)

    def run_kubectl(self, *arguments: str, input: str | None = None, seconds: float = 120) -> str:
        """What kubectl printed. Fails the test, with what it said, when it fails."""
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=input, text=True, capture_output=True, timeout=seconds, check=False)
        if done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def run_pod(self, namespace: str, pod: dict[str, Any], *, seconds: float = 120) -> str:
        """Runs a pod to its end. Returns its log; fails the test when the pod did not succeed."""
        name = pod["metadata"]["name"]
        self.run_kubectl("create", f"--namespace={namespace}", "-f", "-", input=json.dumps(pod))
        wait_until(
            lambda: self.pod_phase(namespace, name) in ("Succeeded", "Failed"), seconds=seconds, what=f"{name}'s end"
        )
        log = self.run_kubectl("logs", f"--namespace={namespace}", name)
        if (phase := self.pod_phase(namespace, name)) != "Succeeded":
            pytest.fail(f"pod {name}: {phase}: {log[-2000:]}")
        return log

    def pod_phase(self, namespace: str, name: str) -> str:
        return self.run_kubectl("get", "pod", f"--namespace={namespace}", name, "-o", "jsonpath={.status.phase}")


def restricted_pod(
    name: str, image: str, command: list[str], variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A pod as strict as a run's: no root, nothing writable but /tmp, /cache and /work."""
    folders = ("tmp", "cache", "work")
    container = {
        "name": "main",
        "image": image,
        # in place of what follows tini in the image's entry point
        "command": ["/usr/bin/tini", "--", *command],
        "env": [{"name": key, "value": value} for key, value in (variables or {}).items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": folder, "mountPath": f"/{folder}"} for folder in folders],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": folder, "emptyDir": {}} for folder in folders],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestCluster]:
    """A running cluster. Its own one is brought up when it is not running, and then taken down at the end."""
    if given := os.environ.get("LORAJOB_TEST_KUBECONFIG"):
        kubeconfig = Path(given).absolute()
        beside = (kubeconfig.parent, kubeconfig.parent / "bin", kubeconfig.resolve().parent / "bin")
        kubectl = _program("kubectl", *beside)
        yield TestCluster(kubeconfig, kubectl, os.environ.get("LORAJOB_TEST_HOST_IP", places.HOST_IP))
        return
    here = places.default()
    with _brought_up(here.root / "full.users", lambda: lifecycle.up(here), lambda: lifecycle.down(here)):
        yield TestCluster(here.full.kubeconfig, here.programs / "kubectl", here.full.host)


@pytest.fixture(scope="session")
def api_server() -> Iterator[TestCluster]:
    """An API server alone, for thousands of objects of which none becomes a pod; apart from `cluster`."""
    here = places.default()
    begin, end = lambda: lifecycle.up_api_only(here), lambda: lifecycle.down_api_only(here)
    with _brought_up(here.root / "api.users", begin, end):
        yield TestCluster(here.api_only.kubeconfig, here.programs / "kubectl", here.api_only.host)


@pytest.fixture(scope="session")
def image(cluster: TestCluster) -> str:
    """The name of the working tree's image (docker/Dockerfile), in the cluster. LORAJOB_TEST_IMAGE names another one.

    Its user has no package with a model's weights: models come from `hub_on_bridge`.
    """
    if given := os.environ.get("LORAJOB_TEST_IMAGE"):
        return given
    here = places.default()
    if cluster.kubeconfig.resolve() != here.full.kubeconfig:
        pytest.skip(
            "no image: the cluster is not the project's own, and LORAJOB_TEST_IMAGE names none that it can pull"
        )
    return builder.ensure(here, here.full)


@pytest.fixture(scope="session")
def s3_on_bridge(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that pods reach too."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs-bridge"), host=cluster.host_ip) as server:
        yield server


@pytest.fixture(scope="session")
def hub_on_bridge(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Both model hubs for pods, with the real weights of HuggingFaceTB/SmolLM2-135M-Instruct."""
    root = tmp_path_factory.mktemp("hub")
    model, _ = small_models.smollm2()
    (root / "HuggingFaceTB").mkdir()
    (root / "HuggingFaceTB" / "SmolLM2-135M-Instruct").symlink_to(model.path)
    server = HubServer(root, host=cluster.host_ip)
    yield server
    server.stop()


@contextlib.contextmanager
def _brought_up(users: Path, up: Callable[[], bool], down: Callable[[], None]) -> Iterator[None]:
    """Skips where nothing can be brought up. `users` is a lock that every test run shares while it uses a cluster.

    The last one to use it takes it down, where one of them has brought it up.
    """
    if reason := lifecycle.why_not():
        pytest.skip(f"no cluster: {reason}, and LORAJOB_TEST_KUBECONFIG names no other")
    users.parent.mkdir(parents=True, exist_ok=True)
    by_tests = users.with_suffix(".by-tests")
    with users.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if up() and not os.environ.get("LORAJOB_TEST_CLUSTER_KEEP"):
            by_tests.touch()
        yield
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if by_tests.exists():
                by_tests.unlink()
                down()


def _program(name: str, *folders: Path) -> Path:
    """A program in one of the folders, else on PATH; skips the test where it is in none of them."""
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    if (found := shutil.which(name)) is None:
        pytest.skip(f"no {name} beside the kubeconfig or on PATH")
    return Path(found)


@pytest.fixture(scope="session")
def _namespaces(cluster: TestCluster) -> Iterator[list[str]]:
    """Names of the namespaces that tests made and asked to be removed; they are waited for once, at the end."""
    removed: list[str] = []
    yield removed
    if removed:
        names = [f"namespace/{name}" for name in removed]
        cluster.run_kubectl("wait", "--for=delete", "--timeout=120s", *names, seconds=150)


@pytest.fixture
def namespace(cluster: TestCluster, _namespaces: list[str], request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new namespace that enforces the PodSecurity profile `restricted`; removed after the test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    name = f"{words[:40].strip('-')}-{secrets.token_hex(3)}"
    cluster.run_kubectl("create", "-f", "-", input=_namespace_manifest(name))
    # most tests need pods, and pods need the account that the controller manager makes
    cluster.run_kubectl("wait", "--for=create", "--timeout=30s", f"--namespace={name}", "serviceaccount/default")
    try:
        yield name
    finally:
        cluster.run_kubectl("delete", "namespace", name, "--wait=false")
        _namespaces.append(name)


def _namespace_manifest(name: str) -> str:
    return f"""
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
"""
