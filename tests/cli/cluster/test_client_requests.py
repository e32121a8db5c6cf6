"""How requests and answers travel: who asks, through which proxy, packed, and line by line."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from fake_cluster import JOBS, access_to, client, server

from fakes.api_server import ApiServer, Reply
from lorajob.cluster import Cluster, Unreachable
from lorajob.cluster.access import Access

__all__ = ["client", "server"]


def test_packed_answers_are_unpacked(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, gzip.compress(b'{"ok": 1}'), headers={"Content-Encoding": "gzip"})]

    assert client.get(JOBS) == {"ok": 1}
    assert server.requests[0].headers["Accept-Encoding"] == "gzip"


def test_the_lines_of_a_log_come_whole_and_the_last_one_needs_no_end(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"first\n\nthird \xff\nno end", content_type="text/plain")]

    assert list(client.lines("/log", timeout_seconds=None)) == [b"first", b"", b"third \xff", b"no end"]


def test_a_stream_that_breaks_off_is_an_error(server: ApiServer, client: Cluster) -> None:
    server.answers += [Reply(200, b"first\n", breaks_off=True)]
    lines = client.lines("/log", timeout_seconds=None)

    assert next(lines) == b"first"
    with pytest.raises(Unreachable, match="closed the connection"):
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
    Cluster(access_to(server, token="secret", impersonate=groups)).get(JOBS)
    Cluster(access_to(server, basic=("jane", "word"))).get(JOBS)

    token, basic = (request.headers for request in server.requests)
    assert token["Authorization"] == "Bearer secret"
    assert token["Impersonate-User"] == "jane"
    assert token["User-Agent"].startswith("lorajob/")
    assert basic["Authorization"] == "Basic amFuZTp3b3Jk"


def test_a_token_file_is_read_again_for_every_request(server: ApiServer, tmp_path: Any) -> None:
    server.answers += [Reply(200, {})] * 2
    file = tmp_path / "token"
    client = Cluster(access_to(server, token_file=file))

    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        client.get(JOBS)

    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def test_a_proxy_is_asked_to_connect_and_its_refusal_is_told(server: ApiServer) -> None:
    server.answers += [Reply(407, {})]
    proxy = f"http://jane:word@127.0.0.1:{server.port}"
    client = Cluster(access_to(server, server="https://cluster.example:6443", proxy=proxy))

    with pytest.raises(Unreachable, match=r"refuses to connect to cluster\.example:6443.*407") as caught:
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
