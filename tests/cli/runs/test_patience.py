"""Following a run over trouble that passes: a server away, or one that has just started and refuses what it allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from run_objects import NAME, at, condition, job, running_pod

from fakes.api_server import DROP, ApiServer, Reply, api_server
from lorajob.cluster import Cluster, Forbidden, Unauthenticated, Unreachable
from lorajob.cluster.access import Access
from lorajob.runs.follow import follow

Answer = Reply | str | Callable[[], Reply | str]

REFUSED = Reply(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": 'User "alice" cannot get jobs'})
UNKNOWN = Reply(401, {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"})
ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}
DONE = {"succeeded": 1, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    for name in ("cluster.transport", "cluster.watching", "runs.patience"):
        monkeypatch.setattr(f"lorajob.{name}._FIRST_PAUSE_SECONDS", 0.01)
    with api_server() as started:
        yield started


def _seen(status: dict[str, Any]) -> list[Answer]:
    """What is answered to one look at the run."""
    found = job(status)
    found["metadata"]["resourceVersion"] = "7"
    return [Reply(200, found), Reply(200, {"kind": "PodList", "metadata": {}, "items": [running_pod()]})]


def _followed(server: ApiServer, said: list[str]) -> list[str]:
    with Cluster(Access(server=server.address, namespace="team", source="the test"), timeout_seconds=5) as client:
        return [status.phase for status in follow(client, NAME, timeout_seconds=20, say=said.append)]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param([DROP, DROP, DROP, DROP, REFUSED, REFUSED], id="restarted, then not ready"),
        pytest.param([REFUSED], id="the watch is refused"),
        pytest.param([UNKNOWN, UNKNOWN, REFUSED], id="does not know anybody yet"),
        pytest.param([REFUSED, _seen(ACTIVE)[0], REFUSED], id="pods are refused"),
    ],
)
def test_what_was_allowed_and_is_refused_for_a_moment_ends_nothing(server: ApiServer, trouble: list[Answer]) -> None:
    server.answers += [*_seen(ACTIVE), _change, *_seen(ACTIVE), *trouble, *_seen(DONE)]
    said: list[str] = []

    assert _followed(server, said)[-1] == "Succeeded"
    assert said[0].endswith("; the run is not affected, and this command tries again")
    assert said[1:] == ["the cluster answers again"]


def _change() -> Reply:
    changed = job(ACTIVE)
    changed["metadata"]["resourceVersion"] = "8"
    return Reply(200, [{"type": "MODIFIED", "object": changed}])


def test_what_is_refused_from_the_beginning_is_said_at_once(server: ApiServer) -> None:
    server.answers += [REFUSED]

    with pytest.raises(Forbidden, match="alice may not get"):
        _followed(server, [])
    assert len(server.requests) == 1


def test_a_watch_that_was_never_allowed_is_said_at_once(server: ApiServer) -> None:
    server.answers += [*_seen(ACTIVE), REFUSED, *_seen(DONE)]

    with pytest.raises(Forbidden, match="alice may not watch"):
        _followed(server, [])


@pytest.mark.parametrize(("answer", "error"), [(REFUSED, Forbidden), (UNKNOWN, Unauthenticated), (DROP, Unreachable)])
def test_what_lasts_is_the_error_that_it_is(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, answer: Any, error: type[Exception]
) -> None:
    monkeypatch.setattr("lorajob.runs.patience.REFUSED_SECONDS", 0.3)
    monkeypatch.setattr("lorajob.runs.patience.UNREACHABLE_SECONDS", 0.3)
    monkeypatch.setattr("lorajob.cluster.watching.PATIENCE_SECONDS", 0.1)
    server.answers += [*_seen(ACTIVE), _change, *_seen(ACTIVE), *[answer] * 300]
    said: list[str] = []

    with pytest.raises(error):
        _followed(server, said)
    assert len(said) == 1
