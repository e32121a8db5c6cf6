"""Following a run: detaching from it, and a cluster that is out of reach for a while."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from made_runs import MadeRuns, lorajob, made

from cluster_fixtures import TestCluster
from lorajob.cluster import NotFound, connect
from lorajob.runs.follow import follow
from lorajob_runtime.contract.kubernetes import MANAGED_BY_LABEL
from proxies import Proxy

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]


def _watching(cluster: TestCluster, made: MadeRuns, **streams: Any) -> subprocess.Popen[bytes]:
    words = ["watch", "first", "--kubeconfig", str(cluster.kubeconfig), "-n", made.client.namespace]
    return subprocess.Popen([sys.executable, "-m", "lorajob", *words], **streams)


def test_ctrl_c_detaches_and_says_that_the_run_goes_on(made: MadeRuns, cluster: TestCluster) -> None:
    made.run("first")
    with _watching(cluster, made, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert b"first: Pending" in line
    assert process.returncode == 0
    assert said == b"lorajob: detached: run first keeps running; `lorajob watch first` shows it again\n"
    assert made.client.get(made.client.jobs("first"))["spec"]["suspend"] is False


def test_on_a_terminal_one_view_is_refreshed(made: MadeRuns, cluster: TestCluster, wait_until: Wait) -> None:
    made.run("first")
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                shown.append(os.read(ours, 65536))
            except OSError:
                return

    with _watching(cluster, made, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        wait_until(lambda: b"Pending" in b"".join(shown), what="the first view")
        made.succeed("first")
        assert process.wait(timeout=60) == 0
    reader.join(60)
    os.close(ours)

    text = b"".join(shown).decode()
    assert text.count("Run:") == 2
    assert "F\x1b[J" in text
    assert text.rstrip().endswith("adapter: s3://models/lora/first/adapter")


@pytest.fixture
def way(cluster: TestCluster, tmp_path: Path) -> Iterator[tuple[Proxy, Path]]:
    """A way to the API server that can be cut, and a kubeconfig that takes it."""
    config = yaml.safe_load(cluster.run_kubectl("config", "view", "--raw", "--minify"))
    entry = config["clusters"][0]["cluster"]
    server = urlsplit(entry["server"])
    assert server.hostname is not None
    proxy = Proxy((server.hostname, server.port or 443))
    entry["server"] = proxy.endpoint.replace("http://", "https://")
    entry["tls-server-name"] = server.hostname
    (tmp_path / "config").write_text(json.dumps(config))
    yield proxy, tmp_path / "config"
    proxy.cut()


def test_a_cluster_that_is_out_of_reach_for_a_while_does_not_end_the_following(
    made: MadeRuns, way: tuple[Proxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.cluster.watching.PATIENCE_SECONDS", 0.5)
    proxy, config = way
    made.run("first")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            made.succeed("first")
            proxy.restore()

    with connect(str(config), namespace=made.client.namespace) as client:
        following = follow(client, "first", timeout_seconds=60, say=say)
        first = next(following)
        proxy.cut()
        last = [*following][-1]

    assert (first.phase, last.phase) == ("Pending", "Succeeded")
    assert said[0].endswith("; the run is not affected, and this command tries again")
    assert said[1:] == ["the cluster answers again"]


def test_a_job_that_is_no_run_any_more_is_not_waited_for_without_end(
    made: MadeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob.runs.follow._REPLACED_WITHIN_SECONDS", 1.0)
    made.run("first")
    following = follow(made.client, "first", timeout_seconds=30)
    next(following)

    made.client.patch(made.client.jobs("first"), {"metadata": {"labels": {MANAGED_BY_LABEL: None}}})

    with pytest.raises(NotFound):
        next(following)
