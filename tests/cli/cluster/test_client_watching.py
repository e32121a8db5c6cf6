"""Lists in pages and watches: what is told of a server that forgets, breaks off, ends too soon or stays away."""

from __future__ import annotations

from typing import Any

import pytest
from fake_cluster import FORBIDDEN, JOBS, client, job, listed, server, status

from fakes.api_server import DROP, ApiServer, Reply
from lorajob.cluster import Cluster, Forbidden, Gone, Unreachable

__all__ = ["client", "server"]


def test_a_list_whose_pages_are_forgotten_goes_on_where_the_server_says(server: ApiServer, client: Cluster) -> None:
    forgotten = Reply(410, {"kind": "Status", "reason": "Expired", "metadata": {"continue": "later"}})
    server.answers += [listed(job("a"), onward="soon"), forgotten, listed(job("b"))]

    assert [item["metadata"]["name"] for item in client.pages(JOBS, limit=1)] == ["a", "b"]
    assert server.requests[-1].path == f"{JOBS}?limit=1&continue=later"


def test_a_list_whose_pages_are_forgotten_for_good_is_an_error(server: ApiServer, client: Cluster) -> None:
    server.answers += [listed(job("a"), onward="soon"), status(410, "Expired", "too old")]

    with pytest.raises(Gone, match="too old"):
        list(client.pages(JOBS))


def test_a_watch_tells_what_changed_and_what_vanished_while_it_could_not_look(
    server: ApiServer, client: Cluster
) -> None:
    server.answers += [
        listed(job("kept"), job("changed"), job("removed")),
        Reply(200, [{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}]),
        listed(job("kept"), job("changed", "7"), job("new", "8"), version="9"),
        Reply(200, [{"type": "MODIFIED", "object": job("new", "10")}]),
    ]

    events = client.watch(JOBS, timeout_seconds=5)
    told = [next(events) for _ in range(7)]

    assert [(event["type"], event["object"]["metadata"]["name"]) for event in told] == [
        ("ADDED", "kept"),
        ("ADDED", "changed"),
        ("ADDED", "removed"),
        ("DELETED", "removed"),
        ("MODIFIED", "changed"),
        ("ADDED", "new"),
        ("MODIFIED", "new"),
    ]
    assert {event["object"]["kind"] for event in told if event["type"] == "ADDED"} == {"Job"}
    assert "resourceVersion=9" in server.requests[-1].path


def test_a_watch_goes_on_from_where_it_was_when_the_connection_breaks(server: ApiServer, client: Cluster) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": "5"}}}
    server.answers += [
        listed(version="1"),
        Reply(200, [{"type": "ADDED", "object": job("a", "2")}, bookmark], breaks_off=True),
        DROP,
        status(503, "ServiceUnavailable", "starting"),
        Reply(200, [{"type": "MODIFIED", "object": job("a", "6")}]),
    ]

    events = client.watch(JOBS, timeout_seconds=5)
    told = [next(events), next(events)]

    assert [event["type"] for event in told] == ["ADDED", "MODIFIED"]
    assert "resourceVersion=5" in server.requests[-1].path


def test_a_watch_gives_up_on_a_server_that_stays_away(
    server: ApiServer, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.cluster.watching.PATIENCE_SECONDS", 0.1)
    server.answers += [listed(), *[DROP] * 200]

    with pytest.raises(Unreachable):
        list(client.watch(JOBS, timeout_seconds=None))


_TOO_OLD = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([Reply(200, [])], id="ends at once"),
        pytest.param([Reply(200, b'{"type": "ADDED", "ob')], id="breaks in the first event"),
        pytest.param([Reply(200, [_TOO_OLD]), listed(job("a"))], id="always too old"),
        pytest.param([DROP], id="drops the connection"),
    ],
)
def test_a_watch_that_ends_at_once_is_not_asked_again_in_a_tight_loop(
    server: ApiServer, client: Cluster, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.cluster.watching._FIRST_PAUSE_SECONDS", 0.05)
    server.answers += [listed(job("a")), *answers * 500]

    told = list(client.watch(JOBS, timeout_seconds=2))

    assert len(told) == 1
    assert 2 < len(server.requests) < 20, "about one request for each doubling of the pause"


def test_a_watch_that_lasts_is_asked_again_at_once(
    server: ApiServer, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends each watch in good order after its time must not be asked ever more seldom."""
    monkeypatch.setattr("lorajob.cluster.watching._FIRST_PAUSE_SECONDS", 30)
    monkeypatch.setattr("lorajob.cluster.watching._LIVED_SECONDS", 0)
    server.answers += [listed(), *[Reply(200, [])] * 3, Reply(200, [{"type": "ADDED", "object": job("a", "4")}])]

    assert next(client.watch(JOBS, timeout_seconds=20))["object"]["metadata"]["name"] == "a"


def test_a_watch_that_is_not_allowed_says_so(server: ApiServer, client: Cluster) -> None:
    server.answers += [listed(), status(403, "Forbidden", FORBIDDEN.replace("create", "watch"))]

    with pytest.raises(Forbidden, match=r"eve may not watch jobs\.batch in namespace team"):
        list(client.watch(JOBS, timeout_seconds=5))


def test_a_watch_goes_on_when_an_event_comes_in_half(server: ApiServer, client: Cluster) -> None:
    server.answers += [
        listed(version="3"),
        Reply(200, b'{"type": "ADDED", "object": {"metad', content_type="application/json"),
        Reply(200, [{"type": "ADDED", "object": job("a", "4")}]),
    ]

    assert next(client.watch(JOBS, timeout_seconds=5))["object"]["metadata"]["name"] == "a"
    assert "resourceVersion=3" in server.requests[-1].path
