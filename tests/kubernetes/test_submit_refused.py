"""A submit that is refused, by the server or before it is asked: one line, and nothing is left."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from made_runs import PLATFORM_FILE, lorajob
from restricted import user_rules, with_token, without
from submitting import TWO_NODES, Restricted, Wait, client, left, one_error, rows

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.cluster import Cluster, Forbidden, Refused, connect
from lorajob.platform.platform_config import Platform, PlatformStorage
from lorajob.submit import submission
from lorajob_runtime.contract.spec import RunSpec

__all__ = ["client", "lorajob", "rows"]


# Nothing half-created


@pytest.mark.parametrize("resource", ["jobs", "services", "configmaps"])
def test_without_the_right_to_create_a_part_nothing_is_left(
    lorajob: Call,
    client: Cluster,
    cluster: TestCluster,
    namespace: str,
    restricted_kubeconfig: Restricted,
    resource: str,
    wait_until: Wait,
) -> None:
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "create", resource))

    outcome = lorajob("submit", *TWO_NODES, "--name", "first", user=user)

    assert outcome.code == 13
    assert f"may not create {resource}" in one_error(outcome.err)
    # what the Job owned goes after it
    wait_until(lambda: left(client) == [], what="the removal of what was made")


def test_what_cannot_be_taken_back_is_said(
    lorajob: Call, cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    rules = without(without(user_rules(cluster), "create", "services"), "delete", "jobs")

    outcome = lorajob("submit", *TWO_NODES, "--name", "first", user=restricted_kubeconfig(namespace, rules))

    assert outcome.code == 13
    assert "and its Job could not be removed again" in one_error(outcome.err)
    assert f"kubectl delete job first -n {namespace}" in outcome.err


@pytest.mark.parametrize(
    ("limit", "nodes"), [("count/jobs.batch", 2), ("count/services", 2), ("services", 2), ("count/configmaps", 1)]
)
def test_a_quota_that_is_used_up_leaves_nothing(
    lorajob: Call, client: Cluster, namespace: str, limit: str, nodes: int, wait_until: Wait
) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    most = "1" if "configmaps" in limit else "0"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {limit: most}}}
    client.post(path, quota)
    line = ["submit", "-m", "qwen3-8b", "--nodes", str(nodes), "-d", "rows.json", "--name", "first"]
    # it is enforced once it has been counted, and once the server's own copy of it is as new
    wait_until(lambda: client.get(f"{path}/few").get("status", {}).get("used"), what="the quota")
    wait_until(lambda: lorajob(*line, "--dry-run=server").code != 0, what="the quota's enforcement")

    outcome = lorajob(*line)

    assert outcome.code == 10
    assert f"the quota of namespace {namespace} does not allow it" in one_error(outcome.err)
    wait_until(lambda: left(client) == [], what="the removal of what was made")


def test_a_name_that_is_taken_leaves_the_other_run_alone(lorajob: Call, client: Cluster) -> None:
    lorajob("submit", "--name", "first", "-m", "qwen3-8b")
    before = client.get(client.jobs("first"))["metadata"]["uid"]

    outcome = lorajob("submit", *TWO_NODES, "--name", "first")

    assert outcome.code == 2
    assert one_error(outcome.err) == f"run first exists already in namespace {client.namespace}"
    assert "lorajob delete first" in outcome.err
    assert client.get(client.jobs("first"))["metadata"]["uid"] == before
    assert left(client) == ["job/first"]


def test_a_service_of_others_under_the_name_makes_the_job_go_again(lorajob: Call, client: Cluster) -> None:
    port = [{"port": 80}]
    metadata = {"name": "first"}
    client.post(
        client.services(), {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": port}}
    )

    outcome = lorajob("submit", *TWO_NODES, "--name", "first")

    assert outcome.code == 2
    assert "Service first exists already" in one_error(outcome.err)
    assert left(client) == []


def test_a_field_that_the_server_does_not_know_is_refused_not_dropped(client: Cluster) -> None:
    platform = Platform(image="x", storage=PlatformStorage(uri="s3://bucket"))
    prepared = submission.prepare(RunSpec(name="first"), platform, namespace=client.namespace, rng=random.Random(1))
    prepared.manifests.job["spec"]["ofANewerClient"] = True

    with pytest.raises(Refused, match=r'unknown field "spec\.ofANewerClient"'):
        submission.create(client, prepared.manifests)

    assert left(client) == []


def test_data_that_no_run_could_use_is_refused_before_anything_is_created(
    lorajob: Call, client: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text('[{"colour": "red"}]')

    outcome = lorajob("submit", "-d", "rows.json", "--name", "first")

    assert outcome.code == 11
    assert "no row has a known form" in one_error(outcome.err)
    assert left(client) == []


# The cluster and the platform


def test_a_namespace_that_does_not_exist_is_said_in_one_line(lorajob: Call) -> None:
    outcome = lorajob("submit", "--name", "first", "-n", "nowhere-at-all")

    assert outcome.code == 102
    assert one_error(outcome.err) == "namespace nowhere-at-all does not exist"


def test_a_namespace_that_does_not_exist_is_said_rather_than_a_missing_platform(
    lorajob: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LORAJOB_PLATFORM")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    outcome = lorajob("submit", "--name", "first", "-n", "nowhere-at-all")

    assert outcome.code == 102
    assert one_error(outcome.err) == "namespace nowhere-at-all does not exist"


def test_plain_http_to_the_cluster_is_a_wrong_address_and_no_rule(
    lorajob: Call, cluster: TestCluster, tmp_path: Path
) -> None:
    config = with_token(cluster, "any", "team")
    server = config["clusters"][0]["cluster"]
    server["server"] = server["server"].replace("https://", "http://")
    (tmp_path / "config").write_text(json.dumps(config))

    outcome = lorajob("status", "first", user=tmp_path / "config")

    assert outcome.code == 104
    assert "Client sent an HTTP request to an HTTPS server" in one_error(outcome.err)
    assert "correct the server's address" in outcome.err


def test_a_cluster_that_does_not_answer_ends_with_104(lorajob: Call, cluster: TestCluster, tmp_path: Path) -> None:
    config = with_token(cluster, "any", "team")
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(json.dumps(config))

    outcome = lorajob("submit", "--name", "first", user=tmp_path / "config")

    assert outcome.code == 104
    assert "127.0.0.1:1" in one_error(outcome.err)


def test_credentials_that_are_not_accepted_end_with_13(
    lorajob: Call, cluster: TestCluster, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(json.dumps(with_token(cluster, "expired", namespace)))

    outcome = lorajob("submit", "--name", "first", user=tmp_path / "config")

    assert outcome.code == 13
    assert "does not accept your credentials" in one_error(outcome.err)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no platform is configured: there is no ConfigMap lorajob-platform in namespace"),
        ("image: [", "platform.yaml:"),
        ("storage: {uri: s3://bucket}", "image is missing"),
        (PLATFORM_FILE + "fleet: {regions: 3}\n", "unknown field fleet"),
    ],
)
def test_a_platform_that_is_missing_broken_or_of_a_newer_chart_is_said_in_one_line(
    lorajob: Call,
    client: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: str | None,
    said: str,
) -> None:
    monkeypatch.delenv("LORAJOB_PLATFORM")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if content is not None:
        metadata = {"name": "lorajob-platform"}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"platform.yaml": content}}
        client.post(client.config_maps(), config_map)

    outcome = lorajob("submit", "--name", "first")

    assert outcome.code == 10
    assert said in one_error(outcome.err)
    assert left(client) == []


def test_the_error_of_a_missing_right_is_the_clusters_own(
    cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "create", "jobs"))
    platform = Platform(image="x", storage=PlatformStorage(uri="s3://bucket"))
    prepared = submission.prepare(RunSpec(name="first"), platform, namespace=namespace, rng=random.Random(1))

    with connect(str(user)) as limited, pytest.raises(Forbidden):
        submission.create(limited, prepared.manifests, dry_run=True)
