"""Users who may only some things: real ServiceAccounts with Roles, and kubeconfigs with their tokens.

kubeconfig = restricted_kubeconfig(namespace, without(user_rules(cluster), "create", "jobs"))
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_fixtures import TestCluster
from lorajob.cluster import connect
from waiting import wait_until

CHART = Path(__file__).resolve().parents[2] / "charts/lorajob"

Rule = dict[str, Any]
"""One rule of a Role: apiGroups, resources, verbs."""


@pytest.fixture
def restricted_kubeconfig(cluster: TestCluster, tmp_path: Path) -> Callable[[str, Sequence[Rule]], Path]:
    """`restricted_kubeconfig(namespace, rules)`: the kubeconfig of a new user with just these rights there.

    Its context names the namespace. The user goes with the namespace.
    """

    def make(namespace: str, rules: Sequence[Rule]) -> Path:
        name = f"user-{secrets.token_hex(3)}"
        cluster.run_kubectl("create", "-f", "-", input=json.dumps(_user(name, namespace, rules)))
        token = cluster.run_kubectl("create", "token", name, f"--namespace={namespace}", "--duration=1h").strip()
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(json.dumps(with_token(cluster, token, namespace)))
        # the server's authorizer learns of a new Role a moment later
        wait_until(lambda: all(_may(path, namespace, rule) for rule in rules), what="the rights of the new user")
        return path

    return make


def with_token(cluster: TestCluster, token: str, namespace: str) -> dict[str, Any]:
    """The kubeconfig of whoever has a token."""
    view = ("config", "view", "--raw", "--minify", "--output=json")
    config: dict[str, Any] = json.loads(cluster.run_kubectl(*view))
    config["users"] = [{"name": "user", "user": {"token": token}}]
    context = config["contexts"][0]
    context["context"] = {"cluster": context["context"]["cluster"], "user": "user", "namespace": namespace}
    return config


def user_rules(cluster: TestCluster) -> list[Rule]:
    """What the chart's Role lorajob-user allows."""
    needed = ("--set=platform.image=x", "--set=platform.storage.uri=s3://bucket", "--set=users.kueue=true")
    command = [str(cluster.helm), "template", "lorajob", str(CHART), *needed, "--show-only=templates/users.yaml"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return list(next(yaml.safe_load_all(made))["rules"])


def rights(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Every (verb, resource) that rules allow."""
    for rule in rules:
        for resource in rule["resources"]:
            yield from ((verb, resource) for verb in rule["verbs"])


def without(rules: Sequence[Rule], verb: str, resource: str) -> list[Rule]:
    """The rules less one verb on one resource."""
    kept = []
    for rule in rules:
        others = [each for each in rule["resources"] if each != resource]
        verbs = [each for each in rule["verbs"] if each != verb]
        if resource not in rule["resources"]:
            kept.append(rule)
            continue
        if others:
            kept.append(rule | {"resources": others})
        if verbs:
            kept.append(rule | {"resources": [resource], "verbs": verbs})
    return kept


def _user(name: str, namespace: str, rules: Sequence[Rule]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        rbac | {"kind": "Role", "rules": list(rules)},
        rbac | {"kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _may(kubeconfig: Path, namespace: str, rule: Rule) -> bool:
    resource, _, subresource = rule["resources"][0].partition("/")
    asked = {
        "namespace": namespace,
        "verb": rule["verbs"][0],
        "group": rule["apiGroups"][0],
        "resource": resource,
        "subresource": subresource,
        "name": (rule.get("resourceNames") or [""])[0],
    }
    with connect(str(kubeconfig)) as cluster:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body |= {"spec": {"resourceAttributes": asked}}
        review = cluster.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(review["status"]["allowed"])
