"""Runs on a real API server without training: Jobs in any state that a test wants, and Jobs whose pod only waits.

A Job of another `managedBy` is left alone by the Job controller, and the server lets its status be written. A pod that
no node fits can be given any status as well.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from calling import Call, Outcome
from cluster_fixtures import TestCluster
from lorajob.__main__ import main
from lorajob.cluster import Cluster, connect
from lorajob.platform.platform_config import Platform, PlatformStorage
from lorajob.submit import manifest
from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.kubernetes import Progress
from lorajob_runtime.contract.spec import RunSpec

PAUSE_IMAGE = "localhost/pause:1"
PLATFORM = Platform(image=PAUSE_IMAGE, storage=PlatformStorage(uri="s3://models/lora"), service_account="default")
PLATFORM_FILE = f"""
image: {PAUSE_IMAGE}
serviceAccount: default
storage: {{uri: "s3://models/lora"}}
"""

Status = dict[str, Any]

NOWHERE = {"lorajob.dev/none": "true"}
"""The label of no node: such a pod is in the state that a test gives it."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, reason: str = "Test", message: str = "", *, status: str = "True") -> Status:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}


class MadeRuns:
    """Makes runs in one namespace."""

    def __init__(self, client: Cluster) -> None:
        self.client = client

    def run(self, name: str, *, nodes: int = 1, gpus: int = 1, **changes: Any) -> dict[str, Any]:
        """A run whose state the test decides. `changes` are laid over the Job's spec."""
        job = self._manifest(name, nodes=nodes, gpus=gpus)
        job["spec"] |= {"managedBy": "lorajob.dev/tests", **changes}
        return self.client.post(self.client.jobs(), job)

    def live(self, name: str, *, container: Status | None = None, pod: Status | None = None) -> dict[str, Any]:
        """A run of the Job controller whose pod does nothing until it is stopped, with other values for the pod."""
        job = self._manifest(name)
        template = job["spec"]["template"]["spec"]
        own = template["containers"][0]
        for key in ("env", "envFrom", "resources", "volumeMounts", "args"):
            own.pop(key, None)
        own |= {"command": ["/pause"], "imagePullPolicy": "Never"} | (container or {})
        template["volumes"] = []
        template["automountServiceAccountToken"] = False
        template["terminationGracePeriodSeconds"] = 1
        template |= pod or {}
        return self.client.post(self.client.jobs(), job)

    def set_status(self, name: str, status: Status) -> dict[str, Any]:
        """Writes the status of a Job that no controller touches; the time of its start stays once it has one."""
        path = f"{self.client.jobs(name)}/status"
        began = (self.client.get(path).get("status") or {}).get("startTime")
        status = status | ({"startTime": began} if began else {})
        return self.client.patch(path, {"status": status}, fieldManager="kube-controller-manager")

    def start(self, name: str, *, ready: int = 1, **more: Any) -> None:
        """The status of a Job whose pods are running."""
        self.set_status(name, {"active": max(1, ready), "ready": ready, "startTime": now(), **more})

    def fail(self, name: str, reason: str, message: str = "") -> None:
        """The status of a Job that has failed."""
        conditions = [condition(kind, reason, message) for kind in ("FailureTarget", "Failed")]
        self.set_status(name, {"active": 0, "ready": 0, "failed": 1, "startTime": now(), "conditions": conditions})

    def succeed(self, name: str) -> None:
        """The status of a Job that is complete."""
        conditions = [condition(kind, "CompletionsReached") for kind in ("SuccessCriteriaMet", "Complete")]
        times = {"startTime": now(), "completionTime": now()}
        counts = {"active": 0, "ready": 0, "succeeded": 1, "completedIndexes": "0"}
        self.set_status(name, {**times, **counts, "conditions": conditions})

    def report(self, name: str, pod_name: str, phase: str = "train", **values: Any) -> None:
        """What a pod of the run says of its progress."""
        progress = Progress(pod=pod_name, attempt=1, time=time.time(), phase=phase, **values)
        body = {"metadata": {"annotations": {kubernetes.PROGRESS_ANNOTATION: progress.dumps()}}}
        self.client.patch(self.client.jobs(name), body, fieldManager="lorajob-runtime")

    def pod(self, job: dict[str, Any], state: Status | None, *, node: int = 0, phase: str = "Pending") -> str:
        """A pod of the Job with a container in this state. Returns its name."""
        name = job["metadata"]["name"]
        letters = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        labels = {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"], kubernetes.RUN_LABEL: name}
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-{node}-{letters}",
                "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(node)},
            },
            "spec": {
                "nodeSelector": NOWHERE,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": kubernetes.CONTAINER,
                        "image": PAUSE_IMAGE,
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        created: str = self.client.post(self.client.pods(), made)["metadata"]["name"]
        if state is not None:
            self.set_pod(created, state, phase)
        return created

    def set_pod(self, name: str, state: Status, phase: str) -> None:
        """Writes the status of a pod that no node has: that of its container, and its phase."""
        is_ready = "running" in state
        container = {
            "name": kubernetes.CONTAINER,
            "image": PAUSE_IMAGE,
            "imageID": "",
            "ready": is_ready,
            "restartCount": 0,
            "state": state,
        }
        conditions = [condition("PodScheduled"), condition("Ready", status="True" if is_ready else "False")]
        status = {"phase": phase, "containerStatuses": [container], "conditions": conditions}
        self.client.patch(f"{self.client.pods(name)}/status", {"status": status})

    def _manifest(self, name: str, *, nodes: int = 1, gpus: int = 1) -> dict[str, Any]:
        spec = specs.parse({"name": name, "model": {"name": "qwen3-8b"}, "resources": {"nodes": nodes, "gpus": gpus}})
        return self.built(spec).job

    def built(self, spec: RunSpec) -> manifest.Manifests:
        """What submitting a spec here makes."""
        return manifest.build(spec, PLATFORM, namespace=self.client.namespace, version="0.1.0")


@pytest.fixture
def made(cluster: TestCluster, namespace: str) -> Iterator[MadeRuns]:
    """Makes runs in the test's own namespace."""
    with connect(str(cluster.kubeconfig), namespace=namespace) as client:
        yield MadeRuns(client)


@pytest.fixture
def lorajob(
    cluster: TestCluster,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Call:
    """`lorajob("status", "first")` in the test's own namespace where it names no other, as the administrator."""
    (tmp_path / "platform.yaml").write_text(PLATFORM_FILE)
    monkeypatch.setenv("LORAJOB_PLATFORM", str(tmp_path / "platform.yaml"))
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    def call(*arguments: str, user: Any = None) -> Outcome:
        where = [] if "-n" in arguments else ["--namespace", namespace]
        who = ["--kubeconfig", str(user)] if user is not None else where
        command, *rest = arguments
        code = main([command, *who, *rest])
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return call


def phase(lorajob: Call, name: str) -> str:
    """What `lorajob status` says of a run."""
    return str(json.loads(lorajob("status", name, "-o", "json").out)["phase"])


def uid(made: MadeRuns, name: str) -> str:
    """The uid of a run's Job."""
    return str(made.client.get(made.client.jobs(name))["metadata"]["uid"])
