"""What is left when a submit breaks off in the middle: of a server that does not answer, and of Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from fakes.api_server import DROP, HANG, ApiServer, Reply, api_server
from lorajob.cluster import Cluster, Unreachable
from lorajob.cluster.access import Access
from lorajob.submit import submission
from lorajob.submit.manifest import Manifests
from lorajob_runtime.contract.errors import InterruptedByUserError

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "first"}}
DATA = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first-data"}}
GONE = Reply(200, {"kind": "Status", "status": "Success"})
MISSING = Reply(404, {"kind": "Status", "reason": "NotFound", "message": 'jobs.batch "first" not found', "code": 404})
"""As the API server says it."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as started:
        yield started


@pytest.fixture
def create(server: ApiServer) -> Iterator[Callable[[], Any]]:
    """Creates a Job and its ConfigMap on the server."""
    access = Access(server=server.address, namespace="team", source="the test")
    with Cluster(access, timeout_seconds=10) as cluster:
        yield lambda: submission.create(cluster, Manifests(job=JOB, owned=(DATA,)))


@pytest.fixture
def job(server: ApiServer) -> Callable[[], Reply]:
    """The answer with the Job of the first request, as the server has it then."""

    def answer() -> Reply:
        manager = parse_qs(server.requests[0].path.partition("?")[2])["fieldManager"][0]
        metadata = {**JOB["metadata"], "uid": "1-2-3", "managedFields": [{"manager": manager, "operation": "Update"}]}
        return Reply(200, {**JOB, "metadata": metadata})

    return answer


def interrupt() -> str:
    """Ctrl-C while the server is at the request."""
    os.kill(os.getpid(), signal.SIGINT)
    return HANG


def asked(server: ApiServer) -> list[str]:
    return [f"{each.method} {each.path.partition('?')[0].rpartition('team/')[2]}" for each in server.requests]


def test_a_job_whose_creation_was_not_answered_is_found_and_removed(server: ApiServer, create: Any, job: Any) -> None:
    server.answers += [DROP, job, GONE]

    with pytest.raises(Unreachable) as caught:
        create()

    assert caught.value.message.endswith("; its Job was removed again")
    assert asked(server) == ["POST jobs", "GET jobs/first", "DELETE jobs/first"]
    assert json.loads(server.requests[-1].body)["preconditions"] == {"uid": "1-2-3"}


def test_a_job_that_may_still_come_is_told(server: ApiServer, create: Any) -> None:
    server.answers += [DROP, MISSING]

    with pytest.raises(Unreachable) as caught:
        create()

    assert "if the request has arrived, `lorajob status first` shows the run" in caught.value.hint


def test_a_job_of_that_name_by_somebody_else_is_left_alone(server: ApiServer, create: Any) -> None:
    server.answers += [
        DROP,
        Reply(200, {"metadata": {"name": "first", "uid": "4-5-6", "managedFields": [{"manager": "lorajob"}]}}),
    ]

    with pytest.raises(Unreachable) as caught:
        create()

    assert asked(server) == ["POST jobs", "GET jobs/first"]
    assert "status first" not in caught.value.hint


def test_ctrl_c_while_the_job_is_created_removes_it_again(server: ApiServer, create: Any, job: Any) -> None:
    server.answers += [interrupt, job, GONE]

    with pytest.raises(InterruptedByUserError) as caught:
        create()

    assert caught.value.message == "interrupted while run first was created; its Job was removed again"
    assert asked(server) == ["POST jobs", "GET jobs/first", "DELETE jobs/first"]


def test_ctrl_c_while_the_data_is_created_removes_the_job(server: ApiServer, create: Any, job: Any) -> None:
    server.answers += [job, interrupt, GONE]

    with pytest.raises(InterruptedByUserError) as caught:
        create()

    assert caught.value.message == "interrupted while run first was created"
    assert asked(server) == ["POST jobs", "POST configmaps", "DELETE jobs/first"]


def test_a_second_ctrl_c_ends_at_once_and_tells_how_to_remove_the_job(server: ApiServer, create: Any, job: Any) -> None:
    server.answers += [job, interrupt, interrupt]

    with pytest.raises(InterruptedByUserError) as caught:
        create()

    assert "and its Job could not be removed again" in caught.value.message
    assert caught.value.hint == "remove it by hand: kubectl delete job first -n team"


def test_what_is_sent_is_what_a_dry_run_prints(server: ApiServer, create: Any, job: Any) -> None:
    server.answers += [job, Reply(201, DATA)]

    create()

    assert json.loads(server.requests[0].body) == JOB
