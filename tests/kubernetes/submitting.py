"""A folder to submit from, and what is there of runs afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from restricted import Rule

from cluster_fixtures import TestCluster
from lorajob.cluster import Cluster, connect
from lorajob_runtime.contract.kubernetes import RUN_LABEL

Restricted = Callable[[str, Sequence[Rule]], Path]
Wait = Callable[..., Any]

ROWS = [{"input": "Who are you?", "output": f"I am number {number}."} for number in range(50)]
TWO_NODES = ("-m", "qwen3-8b", "--nodes", "2", "-d", "rows.json")


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
