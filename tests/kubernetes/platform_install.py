"""Installs the chart into a namespace of the test cluster, for tests that need a platform or whole runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_fixtures import TestCluster
from fakes.hub_server import HubServer
from lorajob_runtime.contract import spec as specs
from s3_servers import S3Server

CHART = Path(__file__).resolve().parents[2] / "charts/lorajob"
RELEASE = "lorajob"
STORAGE_SECRET = "lorajob-storage"

SMALL: dict[str, Any] = specs.merge(
    yaml.safe_load((CHART / "values-small.yaml").read_text("utf-8")),
    {"platform": {"imagePullPolicy": "Never", "gracePeriodSeconds": 60}},
)
"""What suits a node of two cores, whose image is there already: the chart's own values for small clusters."""


def install_platform(
    cluster: TestCluster,
    namespace: str,
    *,
    image: str,
    s3: S3Server | None = None,
    hub: HubServer | None = None,
    values: Mapping[str, Any] | None = None,
) -> str:
    """Installs the chart, or upgrades it, and returns the platform's storage address, in a bucket of its own.

    `s3` and `hub`, which stands in for both hubs, must be where pods reach them. `values` is laid over SMALL. Without
    `s3` nothing can be stored, which does for tests whose pods never start. What the chart makes outside of the
    namespace goes when the namespace goes.
    """
    uri = f"s3://{namespace}/runs"
    platform: dict[str, Any] = {"image": image, "storage": {"uri": uri}}
    if s3 is not None:
        platform["storage"] |= {"endpoint": s3.endpoint, "region": "us-east-1", "addressing": "path"}
        _make_bucket(s3, namespace)
        _create_storage_secret(cluster, namespace, s3)
    if hub is not None:
        platform["hubEndpoints"] = {"modelscope": hub.url, "hf": hub.url}
    given = specs.merge(SMALL, {"platform": platform}, values or {})
    done = run_helm(cluster, namespace, "upgrade", "--install", RELEASE, str(CHART), "--values=-", values=given)
    if done.returncode:
        pytest.fail(f"helm upgrade --install: exit {done.returncode}: {done.stderr.strip()}")
    _remove_with_namespace(cluster, namespace)
    return uri


def run_helm(
    cluster: TestCluster, namespace: str, *arguments: str, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """What Helm came to in a namespace; `values` go to its standard input."""
    command = [str(cluster.helm), *arguments, f"--namespace={namespace}", f"--kubeconfig={cluster.kubeconfig}"]
    return subprocess.run(
        command,
        input=None if values is None else json.dumps(values),
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def _make_bucket(s3: S3Server, name: str) -> None:
    if name not in [each["Name"] for each in s3.client().list_buckets()["Buckets"]]:
        s3.make_bucket(name)


def _create_storage_secret(cluster: TestCluster, namespace: str, s3: S3Server) -> None:
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": STORAGE_SECRET}, "stringData": keys}
    cluster.run_kubectl("apply", f"--namespace={namespace}", "-f", "-", input=json.dumps(secret))


def _remove_with_namespace(cluster: TestCluster, namespace: str) -> None:
    """Has the cluster remove the release's cluster-wide objects with the namespace, however the test ends."""
    uid = cluster.run_kubectl("get", "namespace", namespace, "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid}
    for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        ours = [f"lorajob-{each}.{namespace}" for each in ("runner", "users", "platform")]
        names = cluster.run_kubectl("get", kind, *ours, "--ignore-not-found", "-o", "name")
        for name in names.split():
            patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
            cluster.run_kubectl("patch", name, "--type=merge", f"--patch={patch}")
