"""What the client makes of a network and a server that fail: asked again where that is safe, else one line."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from fakes.api_server import DROP, HANG, ApiServer, Reply, api_server
from lorajob.cluster import (
    Cluster,
    Conflict,
    Forbidden,
    Gone,
    Pauses,
    QuotaExceeded,
    Refused,
    Unauthenticated,
    Unreachable,
)
from lorajob.cluster.access import Access
from lorajob.cluster.faults import explain
from lorajob_runtime.exits import LorajobError

JOBS = "/apis/batch/v1/namespaces/team/jobs"


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
    with Cluster(_access(server), timeout_seconds=5) as made:
        yield made


def _access(started: ApiServer, **changes: Any) -> Access:
    return dataclasses.replace(Access(server=started.address, namespace="team", source="the test"), **changes)


def _status(code: int, reason: str, message: str, **details: Any) -> Reply:
    return Reply(code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details})


def _job(name: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version}}


def _list(*items: dict[str, Any], version: str = "1", onward: str = "") -> Reply:
    metadata = {"resourceVersion": version} | ({"continue": onward} if onward else {})
    return Reply(200, {"kind": "JobList", "apiVersion": "batch/v1", "metadata": metadata, "items": list(items)})


def test_a_busy_server_is_asked_again_when_it_says_whatever_was_asked(server: ApiServer, client: Cluster) -> None:
    busy = Reply(429, {"kind": "Status"}, headers={"Retry-After": "0"})
    server.answers += [busy, busy, Reply(201, {"ok": 1})]

    assert client.post(JOBS, {}) == {"ok": 1}
    assert [request.method for request in server.requests] == ["POST"] * 3


def test_a_server_that_stays_busy_is_an_error_after_a_few_attempts(server: ApiServer, client: Cluster) -> None:
    server.answers += [_status(429, "TooManyRequests", "too many requests")] * 9

    with pytest.raises(Unreachable, match=r"can't answer now \(429\): too many requests") as caught:
        client.get(JOBS)

    assert len(server.requests) == 4
    assert caught.value.failure.code == 104


def test_a_pause_that_is_longer_than_the_time_limit_is_not_waited_for(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(503, {"kind": "Status", "message": "starting"}, headers={"Retry-After": "3600"})]
    began = time.monotonic()

    with pytest.raises(Unreachable, match="starting"):
        client.get(JOBS)

    assert time.monotonic() - began < 2


def test_reading_is_tried_again_when_the_connection_breaks(server: ApiServer, client: Cluster) -> None:
    server.answers += [DROP, Reply(200, {"half": "an answer"}, breaks_off=True), Reply(200, {"ok": 1})]

    assert client.get(JOBS) == {"ok": 1}


def test_a_change_is_not_tried_again_when_the_connection_breaks_and_says_that_it_may_be_done(
    server: ApiServer, client: Cluster
) -> None:
    server.answers += [DROP, Reply(201, {})]

    with pytest.raises(Unreachable, match="broke the connection off") as caught:
        client.post(JOBS, {})

    assert "may have been done" in caught.value.hint
    assert len(server.requests) == 1


def test_a_server_error_without_a_time_to_come_back_is_told_at_once(server: ApiServer, client: Cluster) -> None:
    server.answers += [_status(500, "InternalError", "etcdserver: request timed out")]

    with pytest.raises(Unreachable, match="etcdserver: request timed out"):
        client.get(JOBS)


def test_a_connection_that_the_server_closed_in_between_is_replaced_unseen(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, {}), Reply(200, {}, headers={"Connection": "close"}), Reply(201, {"ok": 1})]

    client.get(JOBS)
    client.get(JOBS)
    made = client.post(JOBS, {})

    assert made == {"ok": 1}
    first, second, third = (request.connection for request in server.requests)
    assert first == second != third, "kept while the server keeps it"


def test_a_server_that_says_nothing_ends_in_time(server: ApiServer) -> None:
    server.answers += [HANG]
    client = Cluster(_access(server), timeout_seconds=0.3)

    with pytest.raises(Unreachable, match=r"did not answer within 0\.3 s"):
        client.get(JOBS)


def test_a_port_where_nobody_listens_says_so_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    client = Cluster(Access(server=f"https://{address}", namespace="team", source="the test"))

    with pytest.raises(Unreachable, match=f"{address} refuses connections") as caught:
        client.get(JOBS)

    assert caught.value.failure.code == 104


def test_a_name_that_does_not_exist_says_so() -> None:
    client = Cluster(Access(server="https://kubernetes.invalid:6443", namespace="team", source="the test"))

    with pytest.raises(Unreachable, match=r"the name kubernetes\.invalid can't be resolved"):
        client.get(JOBS)


def test_https_on_a_port_that_speaks_http_says_so(server: ApiServer) -> None:
    client = Cluster(_access(server, server=f"https://127.0.0.1:{server.port}"))

    with pytest.raises(Unreachable, match="TLS failed"):
        client.get(JOBS)


def test_the_page_of_a_proxy_is_shown_as_its_words(server: ApiServer, client: Cluster) -> None:
    page = b"<html><style>p {}</style><body><h1>502 Bad\nGateway</h1></body></html>"
    server.answers += [Reply(502, page, content_type="text/html")]

    with pytest.raises(Unreachable, match=r"can't answer now \(502\): 502 Bad Gateway"):
        client.get(JOBS)


def test_an_answer_that_is_no_json_says_that_this_is_no_api(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"<html>welcome</html>")]

    with pytest.raises(Unreachable, match="something other than JSON"):
        client.get(JOBS)


def test_packed_answers_are_unpacked(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, gzip.compress(b'{"ok": 1}'), headers={"Content-Encoding": "gzip"})]

    assert client.get(JOBS) == {"ok": 1}
    assert server.requests[0].headers["Accept-Encoding"] == "gzip"


FORBIDDEN = (
    'jobs.batch is forbidden: User "eve" cannot create resource "jobs" in API group "batch" in the namespace "team"'
)
NOBODY = FORBIDDEN.replace("eve", "system:anonymous")
QUOTA = 'configmaps "x" is forbidden: exceeded quota: small, requested: count/configmaps=1, used: 1, limited: 1'
UNCOUNTED = 'jobs.batch "x" is forbidden: status unknown for quota: small, resources: count/jobs.batch'
WEBHOOK = 'admission webhook "rules.example" denied the request: every Job needs\na cost centre'
POLICY = "jobs \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no GPUs on Sundays"
ENDING = 'configmaps "x" is forbidden: unable to create new content in namespace team because it is being terminated'


@pytest.mark.parametrize(
    ("reply", "error", "code", "message"),
    [
        (_status(401, "Unauthorized", "Unauthorized"), Unauthenticated, 13, "does not accept your credentials"),
        (_status(403, "Forbidden", NOBODY), Unauthenticated, 13, "does not know who asks to create jobs.batch"),
        (Reply(307, {}), Unreachable, 104, "sends us elsewhere (307)"),
        (_status(403, "Forbidden", FORBIDDEN), Forbidden, 13, "eve may not create jobs.batch in namespace team"),
        (
            _status(403, "Forbidden", QUOTA),
            QuotaExceeded,
            10,
            "the quota of namespace team does not allow it: exceeded",
        ),
        (_status(403, "Forbidden", UNCOUNTED), QuotaExceeded, 10, "does not allow it: status unknown for quota: small"),
        (_status(403, "Forbidden", WEBHOOK), Refused, 10, "denied the request: every Job needs a cost centre"),
        (_status(403, "Forbidden", POLICY), Refused, 10, "denied request: no GPUs on Sundays"),
        (_status(403, "Forbidden", ENDING), Refused, 10, "namespace team is being deleted"),
        (_status(409, "AlreadyExists", "taken", name="x"), LorajobError, 2, "run x exists already in namespace team"),
        (_status(409, "Conflict", "has been modified"), Conflict, 1, "has been modified"),
        (
            _status(422, "Invalid", "spec: bad"),
            Refused,
            10,
            "the cluster refuses to create jobs.batch in namespace team",
        ),
        (
            Reply(400, b"Client sent an HTTP request to an HTTPS server.\n", content_type="text/plain"),
            Unreachable,
            104,
            "does not answer as a Kubernetes API does (400): Client sent an HTTP request to an HTTPS server.",
        ),
        (Reply(403, b"<html>no entry</html>"), Unreachable, 104, "does not answer as a Kubernetes API does (403)"),
        (Reply(404, b"<html>not here</html>"), Unreachable, 104, "does not answer as a Kubernetes API does (404)"),
        (Reply(404, b"404 page not found\n"), LorajobError, 102, "the cluster has no jobs.batch"),
        (Reply(401, b"log in"), Unauthenticated, 13, "does not accept your credentials: log in"),
        (_status(413, "RequestEntityTooLarge", "limit is 3145728"), Refused, 10, "limit is 3145728"),
    ],
)
def test_every_refusal_is_one_line_with_its_own_exit_code(
    server: ApiServer, client: Cluster, reply: Reply, error: type[LorajobError], code: int, message: str
) -> None:
    server.answers += [reply]

    with pytest.raises(error) as caught:
        client.post(JOBS, {})

    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.failure.code == code
    assert caught.value.hint


def test_a_list_whose_pages_are_forgotten_goes_on_where_the_server_says(server: ApiServer, client: Cluster) -> None:
    forgotten = Reply(410, {"kind": "Status", "reason": "Expired", "metadata": {"continue": "later"}})
    server.answers += [_list(_job("a"), onward="soon"), forgotten, _list(_job("b"))]

    assert [item["metadata"]["name"] for item in client.pages(JOBS, limit=1)] == ["a", "b"]
    assert server.requests[-1].path == f"{JOBS}?limit=1&continue=later"


def test_a_list_whose_pages_are_forgotten_for_good_is_an_error(server: ApiServer, client: Cluster) -> None:
    server.answers += [_list(_job("a"), onward="soon"), _status(410, "Expired", "too old")]

    with pytest.raises(Gone, match="too old"):
        list(client.pages(JOBS))


def test_a_watch_tells_what_changed_and_what_vanished_while_it_could_not_look(
    server: ApiServer, client: Cluster
) -> None:
    server.answers += [
        _list(_job("kept"), _job("changed"), _job("removed")),
        Reply(200, [{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}]),
        _list(_job("kept"), _job("changed", "7"), _job("new", "8"), version="9"),
        Reply(200, [{"type": "MODIFIED", "object": _job("new", "10")}]),
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
        _list(version="1"),
        Reply(200, [{"type": "ADDED", "object": _job("a", "2")}, bookmark], breaks_off=True),
        DROP,
        _status(503, "ServiceUnavailable", "starting"),
        Reply(200, [{"type": "MODIFIED", "object": _job("a", "6")}]),
    ]

    events = client.watch(JOBS, timeout_seconds=5)
    told = [next(events), next(events)]

    assert [event["type"] for event in told] == ["ADDED", "MODIFIED"]
    assert "resourceVersion=5" in server.requests[-1].path


def test_a_watch_gives_up_on_a_server_that_stays_away(
    server: ApiServer, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.cluster.watching.PATIENCE_SECONDS", 0.1)
    server.answers += [_list(), *[DROP] * 200]

    with pytest.raises(Unreachable):
        list(client.watch(JOBS, timeout_seconds=None))


_TOO_OLD = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([Reply(200, [])], id="ends at once"),
        pytest.param([Reply(200, b'{"type": "ADDED", "ob')], id="breaks in the first event"),
        pytest.param([Reply(200, [_TOO_OLD]), _list(_job("a"))], id="always too old"),
        pytest.param([DROP], id="drops the connection"),
    ],
)
def test_a_watch_that_ends_at_once_is_not_asked_again_in_a_tight_loop(
    server: ApiServer, client: Cluster, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.cluster.watching._FIRST_PAUSE_SECONDS", 0.05)
    server.answers += [_list(_job("a")), *answers * 500]

    told = list(client.watch(JOBS, timeout_seconds=2))

    assert len(told) == 1
    assert 2 < len(server.requests) < 20, "about one request for each doubling of the pause"


def test_a_watch_that_lasts_is_asked_again_at_once(
    server: ApiServer, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends each watch in good order after its time must not be asked ever more seldom."""
    monkeypatch.setattr("lorajob.cluster.watching._FIRST_PAUSE_SECONDS", 30)
    monkeypatch.setattr("lorajob.cluster.watching._LIVED_SECONDS", 0)
    server.answers += [_list(), *[Reply(200, [])] * 3, Reply(200, [{"type": "ADDED", "object": _job("a", "4")}])]

    assert next(client.watch(JOBS, timeout_seconds=20))["object"]["metadata"]["name"] == "a"


@pytest.mark.parametrize("seed", range(20))
def test_pauses_double_up_to_the_longest_and_differ(seed: int) -> None:
    pauses = Pauses(first_seconds=0.5, longest_seconds=5, rng=random.Random(seed))

    taken = [pauses.take() for _ in range(8)]
    pauses.reset()

    for seconds, most in zip(taken, (0.5, 1, 2, 4, 5, 5, 5, 5), strict=True):
        assert most / 2 <= seconds <= most
    assert len(set(taken)) == 8
    assert pauses.take() <= 0.5


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_the_time_is_that_of_the_server(server: ApiServer, client: Cluster, hours: int) -> None:
    there = datetime.now(UTC) + timedelta(hours=hours)
    server.answers += [Reply(200, {}, headers={"Date": format_datetime(there, usegmt=True)})]

    client.get(JOBS)

    assert abs(client.now() - there) < timedelta(seconds=10)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (9, "the certificate of here:6443 is not valid yet: this machine's clock says "),
        (10, "the certificate of here:6443 has expired"),
        (20, "is not signed by the authority in your kubeconfig"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_named(code: int, said: str) -> None:
    error = ssl.SSLCertVerificationError("refused")
    error.verify_code, error.verify_message = code, "certificate is not yet valid"

    told = explain(error, place="here:6443", proxy=None, method="GET", timeout_seconds=1)

    assert said in told.message
    assert ("clock" in told.hint) == (code in (9, 10))


def test_a_watch_that_is_not_allowed_says_so(server: ApiServer, client: Cluster) -> None:
    server.answers += [_list(), _status(403, "Forbidden", FORBIDDEN.replace("create", "watch"))]

    with pytest.raises(Forbidden, match=r"eve may not watch jobs\.batch in namespace team"):
        list(client.watch(JOBS, timeout_seconds=5))


def test_a_watch_goes_on_when_an_event_comes_in_half(server: ApiServer, client: Cluster) -> None:
    server.answers += [
        _list(version="3"),
        Reply(200, b'{"type": "ADDED", "object": {"metad', content_type="application/json"),
        Reply(200, [{"type": "ADDED", "object": _job("a", "4")}]),
    ]

    assert next(client.watch(JOBS, timeout_seconds=5))["object"]["metadata"]["name"] == "a"
    assert "resourceVersion=3" in server.requests[-1].path


def test_the_lines_of_a_log_come_whole_and_the_last_one_needs_no_end(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"first\n\nthird \xff\nno end", content_type="text/plain")]

    assert list(client.lines("/log", timeout_seconds=None)) == [b"first", b"", b"third \xff", b"no end"]


def test_a_stream_that_breaks_off_is_an_error(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"first\n", breaks_off=True)]
    lines = client.lines("/log", timeout_seconds=None)

    assert next(lines) == b"first"
    with pytest.raises(Unreachable, match="broke the connection off"):
        next(lines)


def test_what_the_reader_of_a_stream_raises_is_its_own(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"first\nsecond\n")]
    lines = client.lines("/log", timeout_seconds=None)

    next(lines)
    with pytest.raises(BrokenPipeError):
        lines.throw(BrokenPipeError)


def test_whoever_asks_is_named_in_the_headers(server: ApiServer) -> None:
    server.answers += [Reply(200, {})] * 2
    groups = (("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"))
    Cluster(_access(server, token="secret", impersonate=groups)).get(JOBS)
    Cluster(_access(server, basic=("jane", "word"))).get(JOBS)

    token, basic = (request.headers for request in server.requests)
    assert token["Authorization"] == "Bearer secret"
    assert token["Impersonate-User"] == "jane"
    assert token["User-Agent"].startswith("lorajob/")
    assert basic["Authorization"] == "Basic amFuZTp3b3Jk"


def test_a_token_file_is_read_again_for_every_request(server: ApiServer, tmp_path: Any) -> None:
    server.answers += [Reply(200, {})] * 2
    file = tmp_path / "token"
    client = Cluster(_access(server, token_file=file))

    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        client.get(JOBS)

    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def test_a_proxy_is_asked_to_connect_and_its_refusal_is_told(server: ApiServer) -> None:
    server.answers += [Reply(407, {})]
    proxy = f"http://jane:word@127.0.0.1:{server.port}"
    client = Cluster(_access(server, server="https://cluster.example:6443", proxy=proxy))

    with pytest.raises(Unreachable, match=r"does not let us through to cluster\.example:6443.*407") as caught:
        client.get(JOBS)

    asked = server.requests[0]
    assert (asked.method, asked.path) == ("CONNECT", "cluster.example:6443")
    assert asked.headers["Proxy-Authorization"] == "Basic amFuZTp3b3Jk"
    assert "word" not in caught.value.message


def test_errors_and_accesses_show_no_secret() -> None:
    access = Access(
        server="https://x", namespace="n", source="s", token="TOKEN", client_key="KEY", basic=("jane", "WORD")
    )

    assert not {"TOKEN", "KEY", "WORD"} & set(json.dumps(repr(access)).replace("'", " ").replace("=", " ").split())
