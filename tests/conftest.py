"""Real servers that tests of several parts share."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime import environment as environment_module
from lorajob_runtime.environment import Environment
from s3_servers import S3Server, seaweedfs
from waiting import wait_until as _wait_until

pytest_plugins = ["cluster_fixtures"]


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Tests that run in the background have Ctrl-C and hang-ups ignored, and so would every program that they start."""
    ignored = [each for each in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        # what is handled here is at its default again in a program that is started from here
        signal.signal(each, lambda *_: None)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`wait_until(condition, seconds=20, what="the condition")`: its first true value, in place of sleeping."""
    return _wait_until


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole test run."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs"), host="127.0.0.1") as server:
        yield server


class Proxy:
    """Passes TCP connections on to a server until it is cut; then it refuses new ones and drops those there are."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.restore()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Listens again, on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """From now on nobody gets through."""
        with self._lock:
            sockets, self._open = self._open, set()
        listener, self._listener = self._listener, None
        for each in [listener, *sockets] if listener else list(sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


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
