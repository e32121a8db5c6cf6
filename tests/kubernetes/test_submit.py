"""`lorajob submit` on a real API server: what is created, and that nothing is left when a part of it is refused."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from made_runs import PLATFORM_FILE, lorajob
from restricted import Rule, user_rules, with_token, without

from calling import Call
from cluster_fixtures import TestCluster
from lorajob import submission
from lorajob.cluster import Cluster, Forbidden, Refused, connect
from lorajob.platform import Platform, PlatformStorage
from lorajob_runtime.pod import DATA_FOLDER, RUN_LABEL, SPEC_ANNOTATION
from lorajob_runtime.spec import RunSpec
from s3_servers import S3Server

__all__ = ["lorajob"]

Restricted = Callable[[str, Sequence[Rule]], Path]
Wait = Callable[..., Any]

ROWS = [{"input": "Who are you?", "output": f"I am number {number}."} for number in range(50)]
TWO_NODES = ("-m", "qwen3-8b", "--nodes", "2", "-d", "rows.json")


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder with a small dataset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))


@pytest.fixture
def client(cluster: TestCluster, namespace: str) -> Cluster:
    """The administrator's view of the test's own namespace."""
    return connect(str(cluster.kubeconfig), namespace=namespace)


def left(client: Cluster) -> list[str]:
    """What is there of any run, by kind and name."""
    paths = {"job": client.jobs(), "service": client.services(), "configmap": client.config_maps()}
    return [
        f"{kind}/{each['metadata']['name']}"
        for kind, path in paths.items()
        for each in client.pages(path, labelSelector=RUN_LABEL)
    ]


def one_error(err: str) -> str:
    """The error on stderr, after the plan: one line, and a hint at most."""
    lines = err.splitlines()
    [error] = [line for line in lines if line.startswith("lorajob: error: ")]
    assert lines[lines.index(error) + 1 :] == [line for line in lines[-1:] if line.startswith("hint: ")]
    assert "Traceback" not in err
    return error.removeprefix("lorajob: error: ")


# What is created


def test_a_run_with_data_on_two_nodes_is_a_job_that_owns_the_rest(lorajob: Call, client: Cluster) -> None:
    outcome = lorajob("submit", *TWO_NODES, "--name", "first")

    assert outcome.code == 0, outcome.err
    job = client.get(client.jobs("first"))
    service, config_map = client.get(client.services("first")), client.get(client.config_maps("first-data"))
    for owned in (service, config_map):
        [owner] = owned["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (job["metadata"]["uid"], True)
    spec = json.loads(job["spec"]["template"]["metadata"]["annotations"][SPEC_ANNOTATION])
    key = spec["data"]["source"].removeprefix(f"{DATA_FOLDER}/")
    assert json.loads(gzip.decompress(base64.b64decode(config_map["binaryData"][key]))) == ROWS
    assert config_map["immutable"] is True
    assert "data      rows.json (50 rows, " in outcome.err
    said = outcome.out.splitlines()
    assert said[0] == "run first submitted"
    assert f"lorajob watch first -n {client.namespace}" in said[1]
    assert f"lorajob logs first -f -n {client.namespace}" in said[2]


def test_the_bare_command_works_as_it_stands(lorajob: Call, client: Cluster) -> None:
    outcome = lorajob("submit", "--model", "glm-4.5-air", "--gpus", "4", "-o", "name")

    assert outcome.code == 0, outcome.err
    name = outcome.out.strip()
    assert left(client) == [f"job/{name}"]
    assert "adapter   rank 8, 594M parameters, routed experts too" in outcome.err
    assert "data      the example set that comes with lorajob" in outcome.err


def test_what_the_dry_run_prints_is_what_a_submit_makes(
    lorajob: Call, client: Cluster, cluster: TestCluster, namespace: str
) -> None:
    printed = lorajob("submit", *TWO_NODES, "--name", "same", "--dry-run", "client").out
    assert left(client) == []
    lorajob("submit", *TWO_NODES, "--name", "same")
    submitted = _comparable(client)
    cluster.run_kubectl("delete", "job", "same", f"--namespace={namespace}", "--cascade=foreground")
    cluster.run_kubectl("wait", "--for=delete", "configmap/same-data", "service/same", f"--namespace={namespace}")

    cluster.run_kubectl("create", "-f", "-", input=printed)

    assert _comparable(client) == submitted


def _comparable(client: Cluster) -> list[Any]:
    """The objects of the run `same` without what the server makes anew each time."""
    found = []
    for path in (client.jobs("same"), client.services("same"), client.config_maps("same-data")):
        each = client.get(path)
        each.pop("status", None)
        for key in ("uid", "resourceVersion", "creationTimestamp", "ownerReferences", "managedFields"):
            each["metadata"].pop(key, None)
        each.get("spec", {}).pop("selector", None)
        template = each.get("spec", {}).get("template")
        if template:
            labels = template["metadata"]["labels"]
            template["metadata"]["labels"] = {key: labels[key] for key in labels if "controller-uid" not in key}
        found.append(each)
    return found


def test_a_dry_run_on_the_server_is_checked_and_keeps_nothing(lorajob: Call, client: Cluster) -> None:
    outcome = lorajob("submit", *TWO_NODES, "--name", "tried", "--dry-run", "server")
    shown = lorajob("submit", *TWO_NODES, "--name", "tried", "--dry-run", "server", "-o", "yaml")

    assert outcome.code == 0, outcome.err
    accepted = [line.split()[0] for line in outcome.out.splitlines()]
    assert accepted == ["job/tried", "service/tried", "configmap/tried-data"]
    assert [each["kind"] for each in yaml.safe_load_all(shown.out)] == ["Job", "Service", "ConfigMap"]
    assert left(client) == []


def test_a_run_as_json_is_as_its_schema_says(lorajob: Call) -> None:
    outcome = lorajob("submit", "--name", "first", "-y", "-o", "json")

    schema = json.loads((importlib.resources.files("lorajob") / "schemas/run.json").read_text())
    jsonschema.validate(json.loads(outcome.out), schema)
    assert json.loads(outcome.out)["name"] == "first"


def test_a_submit_loads_no_library_that_is_slow_to_import(
    lorajob: Call, cluster: TestCluster, namespace: str, tmp_path: Path
) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "lorajob", "submit", "-d", "rows.json", "--gpus", "2"]

    done = subprocess.run(
        [*program, "-n", namespace], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60
    )

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    heavy = {"kubernetes", "requests", "boto3", "botocore", "torch", "transformers", "pydantic", "rich", "numpy"}
    assert not loaded & heavy


# Waiting for its end


def test_waiting_has_a_limit_and_the_run_goes_on(lorajob: Call, client: Cluster) -> None:
    outcome = lorajob("submit", "--name", "slow", "--wait", "--wait-timeout", "1s")

    assert outcome.code == 124
    assert "run slow has not ended within 1s" in one_error(outcome.err)
    assert left(client) == ["job/slow"]


@pytest.mark.parametrize(("how", "code"), [("--watch", 0), ("--wait", 130)])
def test_ctrl_c_leaves_the_run_alone_and_is_no_success_of_one_that_is_waited_for(
    lorajob: Call, client: Cluster, namespace: str, tmp_path: Path, how: str, code: int
) -> None:
    program = [sys.executable, "-m", "lorajob", "submit", "--name", "mine", "-n", namespace, how]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "Ctrl-C leaves it alone" not in (line := process.stderr.readline()):
            assert line, "it ended before"

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == code, said
    assert "detached: run mine goes on" in said
    assert left(client) == ["job/mine"]


# Asking


@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("", 2), ("y", 0)])
def test_example_data_costs_gpus_only_after_a_yes(
    lorajob: Call, client: Cluster, namespace: str, tmp_path: Path, answer: str, code: int
) -> None:
    mine, theirs = os.openpty()
    program = [sys.executable, "-m", "lorajob", "submit", "--name", "asked", "-n", namespace]
    with subprocess.Popen(program, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        os.close(theirs)
        os.write(mine, f"{answer}\n".encode())
        process.communicate(timeout=30)
    os.close(mine)

    assert process.returncode == code
    assert left(client) == (["job/asked"] if code == 0 else [])


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


# Data that is too large for the cluster


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A dataset that does not fit into a ConfigMap."""
    noise = random.Random(1).randbytes(1_500_000).hex()
    (tmp_path / "large.json").write_text(json.dumps([{"input": "a", "output": noise}]))
    return "large.json"


@pytest.fixture
def storage(s3_server: S3Server, tmp_path: Path, lorajob: Call, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket that the platform's storage is in; no key for it is in the environment."""
    bucket = s3_server.make_bucket()
    endpoint = f"storage: {{uri: s3://{bucket}/lora, endpoint: '{s3_server.endpoint}', addressing: path}}\n"
    lines = [line for line in PLATFORM_FILE.splitlines() if not line.startswith("storage")]
    (tmp_path / "platform.yaml").write_text("\n".join(lines) + "\n" + endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return bucket


def test_large_data_goes_to_storage_once(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)

    first = lorajob("submit", "-d", large, "--name", "first")
    second = lorajob("submit", "-d", large, "--name", "second")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    [key] = s3_server.keys(storage)
    assert key.startswith("lora/.data/")
    assert f"uploaded s3://{storage}/{key}" in first.err.splitlines()
    assert f"uploaded s3://{storage}/{key}" not in second.err.splitlines()
    assert left(client) == ["job/first", "job/second"]
    job = client.get(client.jobs("first"))
    assert f"s3://{storage}/{key}" in job["spec"]["template"]["metadata"]["annotations"][SPEC_ANNOTATION]


def test_the_key_of_the_platforms_secret_does_where_the_user_has_none(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    metadata = {"name": "lorajob-storage"}
    client.post(client.secrets(), {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})

    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 0, outcome.err
    assert len(s3_server.keys(storage)) == 1


def test_large_data_without_any_key_is_one_line_and_nothing_is_created(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 13
    assert f"no S3 key for s3://{storage}/lora" in one_error(outcome.err)
    assert left(client) == []
    assert s3_server.keys(storage) == []


def test_large_data_under_a_name_that_is_taken_is_not_sent(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    lorajob("submit", "--name", "first")

    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 2
    assert s3_server.keys(storage) == []
    assert left(client) == ["job/first"]


def test_the_error_of_a_missing_right_is_the_clusters_own(
    cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "create", "jobs"))
    platform = Platform(image="x", storage=PlatformStorage(uri="s3://bucket"))
    prepared = submission.prepare(RunSpec(name="first"), platform, namespace=namespace, rng=random.Random(1))

    with connect(str(user)) as limited, pytest.raises(Forbidden):
        submission.create(limited, prepared.manifests, dry_run=True)
