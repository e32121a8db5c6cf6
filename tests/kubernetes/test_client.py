"""The client on a real API server: objects, pages, streams and watches."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster_fixtures import TestCluster
from lorajob.cluster import AlreadyExists, Cluster, NotFound, connect
from lorajob.cluster.kubeconfig import find


@pytest.fixture
def client(cluster: TestCluster, namespace: str) -> Iterator[Cluster]:
    """The administrator, in a namespace of the test's own."""
    with connect(str(cluster.kubeconfig), namespace=namespace) as connected:
        yield connected


def _config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "test"}}, "data": data}


def test_an_object_is_made_read_changed_in_three_ways_and_deleted(client: Cluster) -> None:
    made = client.post(client.config_maps(), _config_map("one", a="1"), fieldManager="lorajob")
    one = client.config_maps("one")

    client.patch(one, {"data": {"b": "2"}})
    client.patch(one, [{"op": "remove", "path": "/data/a"}], kind="json")
    changed = client.patch(one, {"data": {"c": "über"}}, kind="strategic")

    assert made["metadata"]["managedFields"][0]["manager"] == "lorajob"
    assert changed["data"] == {"b": "2", "c": "über"}
    assert client.get(one)["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
    client.delete(one, propagation="Background")
    with pytest.raises(NotFound, match="ConfigMap one not found in namespace"):
        client.get(one)


def test_a_dry_run_answers_as_the_server_would_and_makes_nothing(client: Cluster) -> None:
    tried = client.post(client.config_maps(), _config_map("tried"), dryRun="All")

    assert tried["metadata"]["uid"]
    with pytest.raises(NotFound):
        client.get(client.config_maps("tried"))


def test_a_list_comes_in_pages_and_misses_nothing(client: Cluster) -> None:
    for number in range(7):
        client.post(client.config_maps(), _config_map(f"m{number}"))

    names = [item["metadata"]["name"] for item in client.pages(client.config_maps(), limit=2, labelSelector="of=test")]

    assert names == [f"m{number}" for number in range(7)]


def test_a_long_list_is_packed_on_its_way_and_whole_again(client: Cluster) -> None:
    text = "long " * 50_000
    client.post(client.config_maps(), _config_map("long", text=text))

    (item,) = client.pages(client.config_maps(), labelSelector="of=test")

    assert item["data"]["text"] == text


def test_many_threads_may_ask_at_the_same_time(client: Cluster) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: client.post(client.config_maps(), _config_map(f"t{n}")), range(24)))

    assert {item["metadata"]["name"] for item in made} == {f"t{n}" for n in range(24)}


def test_a_second_object_of_a_name_is_an_error_and_the_connection_stays_of_use(client: Cluster) -> None:
    client.post(client.config_maps(), _config_map("twice"))

    with pytest.raises(AlreadyExists, match="ConfigMap twice exists already in namespace"):
        client.post(client.config_maps(), _config_map("twice"))

    assert client.get(client.config_maps("twice"))["metadata"]["name"] == "twice"


def test_a_watch_tells_what_is_there_then_what_happens_and_ends_at_its_deadline(client: Cluster) -> None:
    client.post(client.config_maps(), _config_map("before"))
    seen: list[tuple[str, str]] = []
    for event in client.watch(client.config_maps(), timeout_seconds=3, labelSelector="of=test"):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        assert event["object"]["kind"] == "ConfigMap"
        if seen[-1] == ("ADDED", "before"):
            client.patch(client.config_maps("before"), {"data": {"x": "1"}})
            client.post(client.config_maps(), _config_map("after"))
            client.delete(client.config_maps("before"))

    assert seen == [("ADDED", "before"), ("MODIFIED", "before"), ("ADDED", "after"), ("DELETED", "before")]


def test_a_watch_may_begin_at_a_version_and_tells_nothing_before_it(client: Cluster) -> None:
    client.post(client.config_maps(), _config_map("old"))
    version = client.get(client.config_maps())["metadata"]["resourceVersion"]
    client.post(client.config_maps(), _config_map("new"))

    watch = client.watch(client.config_maps(), timeout_seconds=10, resourceVersion=version)

    assert next(watch)["object"]["metadata"]["name"] == "new"
    watch.close()


def test_a_watch_goes_on_when_the_server_ends_its_part_of_it(client: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorajob.cluster.watching.SERVER_TIMEOUT_SECONDS", 1)
    timer = threading.Timer(2.5, lambda: client.post(client.config_maps(), _config_map("late")))
    timer.start()

    names = []
    for event in client.watch(client.config_maps(), timeout_seconds=20, labelSelector="of=test"):
        names.append(event["object"]["metadata"]["name"])
        break
    timer.join()

    assert names == ["late"]


def test_a_watch_from_a_version_that_is_forgotten_begins_with_what_there_is(client: Cluster) -> None:
    client.post(client.config_maps(), _config_map("here"))

    # no server keeps its very first version; one that still does says what is there all the same
    watch = client.watch(client.config_maps(), timeout_seconds=10, labelSelector="of=test", resourceVersion="1")

    assert next(watch)["object"]["metadata"]["name"] == "here"
    watch.close()


def test_lines_of_a_watch_end_quietly_at_the_deadline(client: Cluster) -> None:
    assert list(client.lines(client.config_maps(), timeout_seconds=1, watch=True, labelSelector="of=none")) == []


class ConnectProxy:
    """A proxy that passes on what is asked by CONNECT; `asked` has the first line of every request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += near.recv(1)
            self.asked.append(head.decode().splitlines()[0])
            host, _, port = self.asked[-1].split()[1].rpartition(":")
            far = socket.create_connection((host, int(port)))
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def test_the_server_is_reached_through_a_proxy_and_still_shows_its_own_certificate(cluster: TestCluster) -> None:
    access = find(str(cluster.kubeconfig))
    proxy = ConnectProxy()

    with Cluster(dataclasses.replace(access, proxy=proxy.address)) as through:
        first, second = through.get("/version"), through.get("/version")
    proxy.close()

    assert first == second
    asked = [line.rpartition(" ")[0] for line in proxy.asked]
    assert asked == [f"CONNECT {access.server.removeprefix('https://')}"], "one connection for both"


def test_kubectl_and_lorajob_agree_on_what_several_kubeconfigs_mean(
    cluster: TestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(name: str, **parts: Any) -> str:
        clusters = [{"name": each, "cluster": {"server": f"https://{name}-{each}.example"}} for each in ("a", "b")]
        contexts = [
            {"name": each, "context": {"cluster": each, "user": "u", "namespace": f"{name}-{each}"}} for each in "ab"
        ]
        config = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": contexts} | parts
        config["users"] = [{"name": "u", "user": {"token": name}}]
        (tmp_path / name).write_text(json.dumps(config))
        return str(tmp_path / name)

    one = written("one", contexts=[], **{"current-context": ""})
    two = written("two", clusters=[], **{"current-context": "b"})
    three = written("three", **{"current-context": "a"})
    for paths in ([one, two, three], [three, two, one], [two, one], [str(tmp_path / "missing"), three], [one, three]):
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join(paths))
        view = [str(cluster.kubectl), "config", "view", "--minify", "--raw", "--output=json"]
        seen = json.loads(subprocess.run(view, capture_output=True, check=True, timeout=60).stdout)

        access = find()

        assert access.server == seen["clusters"][0]["cluster"]["server"]
        assert access.namespace == seen["contexts"][0]["context"]["namespace"]
        assert access.token == seen["users"][0]["user"]["token"]
