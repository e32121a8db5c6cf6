"""One pod's log followed over what breaks its stream, from a server that answers as it is told."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
from run_objects import FIRST_POD, failed_pod, running_pod

from fakes.api_server import DROP, ApiServer, Reply, api_server
from lorajob.cluster import Cluster, ClusterError, Forbidden
from lorajob.cluster.access import Access
from lorajob.logs.follow import Following
from lorajob.logs.log_lines import Line, LogFilter
from lorajob.logs.seen_lines import SeenLines

REFUSED = Reply(403, {"kind": "Status", "code": 403, "message": 'User "alice" cannot get resource "pods/log"'})
GONE = Reply(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "pods not found"})
RUNS, ENDED = Reply(200, running_pod()), Reply(200, failed_pod())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    for name in ("cluster.transport", "runs.patience"):
        monkeypatch.setattr(f"lorajob.{name}._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("lorajob.logs.follow.POLL_SECONDS", 0.01)
    with api_server() as started:
        yield started


def _log(*texts: str, breaks_off: bool = False) -> Reply:
    """Lines that all have one time, as CRI-O writes what it reads at once."""
    lines = "".join(f"2026-11-21T09:00:00.5Z {text}\n" for text in texts)
    return Reply(200, lines.encode(), content_type="text/plain", breaks_off=breaks_off)


def _followed(server: ApiServer, *answers: Any) -> list[str]:
    """The lines that come of a pod's log; an error as it is raised."""
    server.answers += answers
    lines: queue.SimpleQueue[tuple[int, Line] | ClusterError] = queue.SimpleQueue()
    with Cluster(Access(server=server.address, namespace="team", source="the test"), timeout_seconds=5) as client:
        following = Following(client, "zhenhuan", LogFilter(), lambda _: None)
        following._lines = lines
        following._pump(0, FIRST_POD, SeenLines())
    found = []
    while not lines.empty():
        came = lines.get()
        if isinstance(came, ClusterError):
            raise came
        found.append(came[1].text)
    return found


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param([_log("a", "b"), RUNS], id="ends in good order"),
        pytest.param([_log("a", "b", breaks_off=True)], id="breaks off"),
        pytest.param([_log("a"), RUNS, DROP, DROP, REFUSED, REFUSED], id="the server starts anew"),
        pytest.param([_log("a"), DROP, DROP, DROP, DROP], id="no word of the pod"),
    ],
)
def test_every_line_comes_once_over_what_breaks_the_stream(server: ApiServer, trouble: list[Any]) -> None:
    whole = _log("a", "b", "b", "c")

    assert _followed(server, *trouble, whole, ENDED, whole) == ["a", "b", "b", "c"]


def test_what_a_pod_printed_last_comes_though_its_stream_broke_before_it_ended(server: ApiServer) -> None:
    assert _followed(server, _log("a"), ENDED, _log("a", "the last word")) == ["a", "the last word"]
    assert "sinceTime=2026-11-21T08%3A59%3A59Z" in server.requests[-1].path


def test_a_pod_that_is_gone_ends_its_log(server: ApiServer) -> None:
    assert _followed(server, _log("a"), GONE) == ["a"]


def test_a_log_that_was_never_allowed_is_said_at_once(server: ApiServer) -> None:
    with pytest.raises(Forbidden, match="alice may not get pods/log"):
        _followed(server, REFUSED)
    assert len(server.requests) == 1
