"""A real Kubernetes for tests: the one that LORAJOB_TEST_KUBECONFIG names, else the project's own (tests/cluster)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

OWN_HOST_IP = "10.88.0.1"


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
        return _program("helm", self.kubectl.parent, self.kubectl.resolve().parent)

    def run_kubectl(self, *arguments: str, input: str | None = None, seconds: float = 120) -> str:
        """What kubectl printed. Fails the test, with what it said, when it fails."""
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=input, text=True, capture_output=True, timeout=seconds, check=False)
        if done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestCluster]:
    """A running cluster. Its own one is brought up when it is not running, and then taken down at the end."""
    if given := os.environ.get("LORAJOB_TEST_KUBECONFIG"):
        kubeconfig = Path(given).absolute()
        beside = (kubeconfig.parent, kubeconfig.parent / "bin", kubeconfig.resolve().parent / "bin")
        kubectl = _program("kubectl", *beside)
        yield TestCluster(kubeconfig, kubectl, os.environ.get("LORAJOB_TEST_HOST_IP", OWN_HOST_IP))
        return
    pytest.skip("no cluster: LORAJOB_TEST_KUBECONFIG names none")


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
