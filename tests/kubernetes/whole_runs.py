"""Whole runs on the test cluster: the image, the chart, S3, a model hub, and `lorajob` as a person types it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_install import install_platform

from cluster_fixtures import TestCluster
from fakes.hub_server import HubServer
from lorajob_runtime.contract import events, kubernetes
from s3_servers import S3Server
from small_models import smollm2, tiny_llama
from waiting import wait_until

TINY = "lorajob/tiny-llama"
"""A random model of two layers on the hub, for tests of what happens around training."""

TINY_SETTINGS = ["data.rows=:60", "train.batchSize=2", "train.gradientAccumulation=1", "train.epochs=999"]
TINY_SETTINGS += ["train.saveSteps=5", "train.loggingSteps=1", "report.samples.count=0"]


class Place:
    """A namespace with the platform in it, and a person who works there."""

    def __init__(self, cluster: TestCluster, namespace: str, s3: S3Server, hub: HubServer, root: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.s3 = s3
        self.hub = hub
        self.root = root

    @property
    def variables(self) -> dict[str, str]:
        """A person's environment: a kubeconfig and nothing else."""
        without = ("AWS_", "LORAJOB_", "KUBE", "SWANLAB_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(without)}
        return kept | {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "HOME": str(self.root),
            "AWS_CONFIG_FILE": os.devnull,
        }

    def lorajob(self, command: str, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """A command in this namespace, come to its end."""
        line = [sys.executable, "-m", "lorajob", command, "--namespace", self.namespace, *arguments]
        return subprocess.run(
            line, cwd=self.root, env=self.variables, text=True, capture_output=True, timeout=seconds, check=False
        )

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """A command in this namespace that goes on; its standard output is a pipe."""
        line = [sys.executable, "-m", "lorajob", command, "--namespace", self.namespace, *arguments]
        return subprocess.Popen(line, cwd=self.root, env=self.variables, text=True, stdout=subprocess.PIPE)

    def submit_tiny(self, name: str, *arguments: str, steps: int) -> None:
        """Submits a run of the tiny model that takes about a second for ten steps."""
        settings = [f"--set={setting}" for setting in [*TINY_SETTINGS, f"train.maxSteps={steps}"]]
        done = self.lorajob("submit", f"--model=hf:{TINY}", f"--name={name}", "--yes", *settings, *arguments)
        assert done.returncode == 0, done.stderr

    def status(self, name: str) -> dict[str, Any]:
        """What `lorajob status -o json` says."""
        done = self.lorajob("status", name, "-o", "json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def wait(self, name: str, *, seconds: float = 300) -> int:
        """The exit code of `lorajob wait`."""
        return self.lorajob("wait", name, "--timeout", f"{seconds:.0f}s", seconds=seconds + 30).returncode

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The run's pods that are not on their way out."""
        listed = self.kubectl("get", "pods", "-l", f"{kubernetes.RUN_LABEL}={name}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(listed)["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def running_pod(self, name: str, *, but: str = "") -> dict[str, Any]:
        """The run's one pod once its container runs; `but` names an earlier one that does not count."""

        def found() -> dict[str, Any] | None:
            return next(
                (
                    item
                    for item in self.pods(name)
                    if item["metadata"]["name"] != but and item["status"]["phase"] == "Running"
                ),
                None,
            )

        running: dict[str, Any] = wait_until(found, seconds=120, what=f"a running pod of {name}")
        return running

    def checkpoints(self, name: str) -> list[int]:
        """Steps of the whole checkpoints in storage."""
        parts = [key.split("/") for key in self.keys(name) if key.endswith("/checkpoint.json")]
        return sorted(int(part[1].removeprefix("step-")) for part in parts)

    def wait_for_checkpoint(self, name: str, *, after: int = 0) -> int:
        """The newest checkpoint in storage once one is there that is later than a step."""
        newest: int = wait_until(
            lambda: max((step for step in self.checkpoints(name) if step > after), default=None),
            seconds=180,
            what=f"a checkpoint of {name} after step {after}",
        )
        return newest

    def keys(self, name: str) -> set[str]:
        """Keys of a run in storage, without its prefix."""
        prefix = f"runs/{name}/"
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=self.namespace, Prefix=prefix)
        return {item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])}

    def stored(self, name: str, key: str) -> bytes:
        """A file of a run in storage."""
        found = self.s3.client().get_object(Bucket=self.namespace, Key=f"runs/{name}/{key}")
        content: bytes = found["Body"].read()
        return content

    def events(self, name: str) -> list[dict[str, Any]]:
        """The event log in storage."""
        path = self.root / f"{name}-events.jsonl"
        path.write_bytes(self.stored(name, "events.jsonl"))
        return list(events.read(path))

    def steps(self, name: str) -> list[int]:
        """The steps in the event log, in its order."""
        return [event["step"] for event in self.events(name) if event["event"] == "step"]

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """What kubectl printed, in this namespace."""
        return self.cluster.run_kubectl(f"--namespace={self.namespace}", *arguments, input=input)


@pytest.fixture(scope="module")
def place(
    cluster: TestCluster,
    image: str,
    s3_on_bridge: S3Server,
    hub_on_bridge: HubServer,
    _namespaces: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """A namespace with the chart installed, as a platform team would."""
    root = tmp_path_factory.mktemp("person")
    tiny = tmp_path_factory.mktemp("tiny")
    tiny_llama(tiny, smollm2()[0].path)
    shelf = hub_on_bridge.root / "lorajob"
    shelf.mkdir(exist_ok=True)
    if not (shelf / "tiny-llama").exists():
        (shelf / "tiny-llama").symlink_to(tiny)
    with _namespace(cluster, _namespaces) as namespace:
        values = {"platform": {"defaults": {"report": {"swanlab": {"mode": "offline"}}}}}
        install_platform(cluster, namespace, image=image, s3=s3_on_bridge, hub=hub_on_bridge, values=values)
        yield Place(cluster, namespace, s3_on_bridge, hub_on_bridge, root)


@contextlib.contextmanager
def _namespace(cluster: TestCluster, removed: list[str]) -> Iterator[str]:
    name = f"runs-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.run_kubectl("create", "-f", "-", input=json.dumps(manifest))
    try:
        yield name
    finally:
        cluster.run_kubectl("delete", "namespace", name, "--wait=false")
        removed.append(name)
