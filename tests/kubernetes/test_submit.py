"""`lorajob submit` on a real API server: what is created, what it asks and how it waits."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from made_runs import lorajob
from submitting import ROWS, TWO_NODES, client, left, one_error, rows

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.cluster import Cluster
from lorajob_runtime.contract.kubernetes import DATA_FOLDER, SPEC_ANNOTATION

__all__ = ["client", "lorajob", "rows"]


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
        while "Ctrl-C does not stop it" not in (line := process.stderr.readline()):
            assert line, "it ended before"

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == code, said
    assert "detached: run mine keeps running" in said
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
