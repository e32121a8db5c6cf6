"""A client of a server that answers what a test says, and that server's answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.api_server import ApiServer, Reply, api_server
from lorajob.cluster import Cluster
from lorajob.cluster.access import Access

JOBS = "/apis/batch/v1/namespaces/team/jobs"
FORBIDDEN = (
    'jobs.batch is forbidden: User "eve" cannot create resource "jobs" in API group "batch" in the namespace "team"'
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr("lorajob.cluster.transport._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("lorajob.cluster.watching._FIRST_PAUSE_SECONDS", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with api_server() as started:
        yield started


@pytest.fixture
def client(server: ApiServer) -> Iterator[Cluster]:
    with Cluster(access_to(server), timeout_seconds=5) as made:
        yield made


def access_to(started: ApiServer, **changes: Any) -> Access:
    """The way to it."""
    return dataclasses.replace(Access(server=started.address, namespace="team", source="the test"), **changes)


def status(code: int, reason: str, message: str, **details: Any) -> Reply:
    """A refusal."""
    return Reply(code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details})


def job(name: str, version: str = "1") -> dict[str, Any]:
    """As little of a Job as a list or watch needs."""
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version}}


def listed(*items: dict[str, Any], version: str = "1", onward: str = "") -> Reply:
    """A page of Jobs; `onward` is the token of the next one."""
    metadata = {"resourceVersion": version} | ({"continue": onward} if onward else {})
    return Reply(200, {"kind": "JobList", "apiVersion": "batch/v1", "metadata": metadata, "items": list(items)})
