"""What the client makes of a network and a server that fail: asked again where that is safe, else one line."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from fake_cluster import FORBIDDEN, JOBS, access_to, client, server, status

from fakes.api_server import DROP, HANG, ApiServer, Reply
from lorajob.cluster import Cluster, Conflict, Forbidden, QuotaExceeded, Refused, Unauthenticated, Unreachable
from lorajob.cluster.access import Access
from lorajob.cluster.network_errors import explain
from lorajob_runtime.contract.errors import LorajobError

__all__ = ["client", "server"]


def test_a_busy_server_is_asked_again_when_it_says_whatever_was_asked(server: ApiServer, client: Cluster) -> None:
    busy = Reply(429, {"kind": "Status"}, headers={"Retry-After": "0"})
    server.answers += [busy, busy, Reply(201, {"ok": 1})]

    assert client.post(JOBS, {}) == {"ok": 1}
    assert [request.method for request in server.requests] == ["POST"] * 3


def test_a_server_that_stays_busy_is_an_error_after_a_few_attempts(server: ApiServer, client: Cluster) -> None:
    server.answers += [status(429, "TooManyRequests", "too many requests")] * 9

    with pytest.raises(Unreachable, match=r"can't answer now \(429\): too many requests") as caught:
        client.get(JOBS)

    assert len(server.requests) == 4
    assert caught.value.failure.code == 104


def test_a_pause_that_is_longer_than_the_time_limit_is_not_waited_for(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(503, {"kind": "Status", "message": "starting"}, headers={"Retry-After": "3600"})]

    # one that is waited for runs into the test's own time limit
    with pytest.raises(Unreachable, match="starting"):
        client.get(JOBS)

    assert len(server.requests) == 1


def test_reading_is_tried_again_when_the_connection_breaks(server: ApiServer, client: Cluster) -> None:
    server.answers += [DROP, Reply(200, {"half": "an answer"}, breaks_off=True), Reply(200, {"ok": 1})]

    assert client.get(JOBS) == {"ok": 1}


def test_a_change_is_not_tried_again_when_the_connection_breaks_and_says_that_it_may_be_done(
    server: ApiServer, client: Cluster
) -> None:
    server.answers += [DROP, Reply(201, {})]

    with pytest.raises(Unreachable, match="closed the connection") as caught:
        client.post(JOBS, {})

    assert "may have been made" in caught.value.hint
    assert len(server.requests) == 1


def test_a_server_error_without_a_time_to_come_back_is_told_at_once(server: ApiServer, client: Cluster) -> None:
    server.answers += [status(500, "InternalError", "etcdserver: request timed out")]

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
    client = Cluster(access_to(server), timeout_seconds=0.3)

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
    client = Cluster(access_to(server, server=f"https://127.0.0.1:{server.port}"))

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


NOBODY = FORBIDDEN.replace("eve", "system:anonymous")

QUOTA = 'configmaps "x" is forbidden: exceeded quota: small, requested: count/configmaps=1, used: 1, limited: 1'

UNCOUNTED = 'jobs.batch "x" is forbidden: status unknown for quota: small, resources: count/jobs.batch'

WEBHOOK = 'admission webhook "rules.example" denied the request: every Job needs\na cost centre'

POLICY = "jobs \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no GPUs on Sundays"

ENDING = 'configmaps "x" is forbidden: unable to create new content in namespace team because it is being terminated'


@pytest.mark.parametrize(
    ("reply", "error", "code", "message"),
    [
        (status(401, "Unauthorized", "Unauthorized"), Unauthenticated, 13, "does not accept your credentials"),
        (status(403, "Forbidden", NOBODY), Unauthenticated, 13, "does not know who asks to create jobs.batch"),
        (Reply(307, {}), Unreachable, 104, "answers with a redirect (307)"),
        (status(403, "Forbidden", FORBIDDEN), Forbidden, 13, "eve may not create jobs.batch in namespace team"),
        (
            status(403, "Forbidden", QUOTA),
            QuotaExceeded,
            10,
            "the quota of namespace team does not allow it: exceeded",
        ),
        (status(403, "Forbidden", UNCOUNTED), QuotaExceeded, 10, "does not allow it: status unknown for quota: small"),
        (status(403, "Forbidden", WEBHOOK), Refused, 10, "denied the request: every Job needs a cost centre"),
        (status(403, "Forbidden", POLICY), Refused, 10, "denied request: no GPUs on Sundays"),
        (status(403, "Forbidden", ENDING), Refused, 10, "namespace team is being deleted"),
        (status(409, "AlreadyExists", "taken", name="x"), LorajobError, 2, "run x exists already in namespace team"),
        (status(409, "Conflict", "has been modified"), Conflict, 1, "has been modified"),
        (
            status(422, "Invalid", "spec: bad"),
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
        (status(413, "RequestEntityTooLarge", "limit is 3145728"), Refused, 10, "limit is 3145728"),
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
