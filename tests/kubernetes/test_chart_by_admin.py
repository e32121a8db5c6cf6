"""The chart, installed by who administers one namespace and has no rights outside of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from platform_install import CHART, RELEASE, SMALL
from restricted import with_token

from cluster_fixtures import TestCluster
from lorajob_runtime.contract import spec as specs
from waiting import wait_until

NEEDED = {"platform": {"image": "localhost/none:1", "storage": {"uri": "s3://bucket/prefix"}}}
WITHOUT_POLICIES = {"runner": {"progress": False}, "users": {"enforceLimits": False, "kueue": False}}


@pytest.fixture
def admin(cluster: TestCluster, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of an account with Kubernetes' own role `admin` in the namespace."""
    cluster.run_kubectl("create", "serviceaccount", "admin", f"--namespace={namespace}")
    account = f"--serviceaccount={namespace}:admin"
    cluster.run_kubectl("create", "rolebinding", "admin", "--clusterrole=admin", account, f"--namespace={namespace}")
    token = cluster.run_kubectl("create", "token", "admin", f"--namespace={namespace}").strip()
    path = tmp_path / "admin.kubeconfig"
    path.write_text(json.dumps(with_token(cluster, token, namespace)))
    question = [str(cluster.kubectl), f"--kubeconfig={path}", "auth", "can-i", "create", "roles"]
    wait_until(lambda: subprocess.run(question, capture_output=True, check=False).returncode == 0, what="the rights")
    return path


def install(
    cluster: TestCluster, admin: Path, namespace: str, values: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    command = [str(cluster.helm), "upgrade", "--install", RELEASE, str(CHART), "--values=-"]
    return subprocess.run(
        [*command, f"--namespace={namespace}", f"--kubeconfig={admin}"],
        input=json.dumps(specs.merge(SMALL, NEEDED, values)),
        env={"PATH": os.environ["PATH"], "HOME": str(admin.parent)},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_a_namespace_s_administrator_installs_changes_and_removes_it(
    cluster: TestCluster, admin: Path, namespace: str
) -> None:
    subjects = {"users": {"subjects": [{"kind": "User", "name": "ana"}]}}
    for values in (WITHOUT_POLICIES, specs.merge(WITHOUT_POLICIES, subjects, {"platform": {"limits": {"gpus": 2}}})):
        done = install(cluster, admin, namespace, values)
        assert done.returncode == 0, done.stderr

    command = [str(cluster.helm), "uninstall", RELEASE, f"--namespace={namespace}", f"--kubeconfig={admin}"]
    removed = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"runner": {"progress": True}}, "validatingadmissionpolicies"),
        ({"users": {"enforceLimits": True}}, "validatingadmissionpolicies"),
        ({"users": {"kueue": True}}, "attempting to grant RBAC permissions not currently held"),
    ],
    ids=str,
)
def test_each_of_the_three_switches_is_for_a_right_of_its_own(
    cluster: TestCluster, admin: Path, namespace: str, values: dict[str, Any], complaint: str
) -> None:
    done = install(cluster, admin, namespace, specs.merge(WITHOUT_POLICIES, values))

    assert done.returncode != 0
    assert complaint in done.stderr


def test_the_rule_for_queues_is_there_where_the_cluster_has_kueue(cluster: TestCluster) -> None:
    def rules(*options: str) -> str:
        command = [str(cluster.helm), "template", RELEASE, str(CHART), "--values=-", *options]
        values = json.dumps(NEEDED)
        return subprocess.run(command, input=values, text=True, capture_output=True, check=True).stdout

    assert "kueue.x-k8s.io" not in rules()
    assert "kueue.x-k8s.io" in rules("--api-versions=kueue.x-k8s.io/v1beta1")
    assert "kueue.x-k8s.io" in rules("--set=users.kueue=true")
    assert "kueue.x-k8s.io" not in rules("--api-versions=kueue.x-k8s.io/v1beta1", "--set=users.kueue=false")


def test_an_upgrade_that_reuses_the_values_of_an_older_chart_gets_what_is_usual(cluster: TestCluster) -> None:
    def made(*options: str) -> str:
        command = [str(cluster.helm), "template", RELEASE, str(CHART), "--values=-", *options]
        return subprocess.run(command, input=json.dumps(NEEDED), text=True, capture_output=True, check=True).stdout

    assert made("--set=users.enforceLimits=null", "--set=users.kueue=null") == made()
