"""Real servers that tests of several parts share."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from family_models import FamilyModels
from golden.said import FOLDER, Said
from lorajob_runtime.system import environment as environment_module
from lorajob_runtime.system.environment import Environment
from proxies import Proxy
from s3_servers import S3Server, seaweedfs
from waiting import wait_until as _wait_until

pytest_plugins = ["cluster_fixtures", "sharing"]


def pytest_configure() -> None:
    """Threads of torch sleep while they wait, in all that is started from here: tests run beside each other."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Tests that run in the background have Ctrl-C and hang-ups ignored, and so would every program that they start."""
    ignored = [each for each in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        # what is handled here is at its default again in a program that is started from here
        signal.signal(each, signal.default_int_handler if each is signal.SIGINT else lambda *_: None)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`wait_until(condition, seconds=20, what="the condition")`: its first true value, in place of sleeping."""
    return _wait_until


@pytest.fixture(scope="session")
def family_models(tmp_path_factory: pytest.TempPathFactory) -> FamilyModels:
    """Tiny models of the five families, each made when it is first asked for."""
    return FamilyModels(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole test run."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs"), host="127.0.0.1") as server:
        yield server


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """A way to the S3 server that can be cut (`cut`) and mended (`restore`)."""
    host, port = s3_server.endpoint.removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    yield proxy
    proxy.cut()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Environment]:
    """Builds an Environment whose folders are the test's own: `settings(s3_endpoint=…)`."""

    def build(**changes: Any) -> Environment:
        variables = {"LORAJOB_CACHE": str(tmp_path / "cache"), "LORAJOB_WORK": str(tmp_path / "work")}
        return dataclasses.replace(environment_module.read(variables), s3_addressing="path", **changes)

    return build


@pytest.fixture
def s3_keys(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with its key in this process's environment."""
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def said(request: pytest.FixtureRequest) -> Iterator[Said]:
    """`said(text)` compares a sentence with the golden file of the test's module (tests/golden/said.py)."""
    made = Said(path=FOLDER / f"{request.path.stem}.txt", test=request.node.name)
    yield made
    made.check()
