"""Stores results in S3, or in a server with its protocol, by boto3. Only this module imports boto3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lorajob_runtime.contract import backoff
from lorajob_runtime.contract.errors import ConfigError, StorageError
from lorajob_runtime.storage import s3_errors
from lorajob_runtime.storage.s3_errors import NO_SUCH_KEY, REFUSED, code_of, server_name
from lorajob_runtime.storage.store import Entry, Keys, check_key, is_key
from lorajob_runtime.system.environment import Environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE = ".lorajob-check"
_PART_BYTES = 32 << 20
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS = 3
_NOT_NEW = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_UNCONDITIONAL = ("NotImplemented", "InvalidArgument", "InvalidRequest", "501", "400")
"""What servers say of a condition that they do not know."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 8.0
_SETTLING_SECONDS = 3.0
"""Longer than a request is under way, as a rule: for servers without conditions."""


class S3Store:
    """The store of one run under a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, environment: Environment, keys: Keys | None = None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._server = server_name(environment.s3_endpoint)
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._client = _client(environment, keys)

    def check(self, *, patience_seconds: float, wait: Callable[[float], None] = time.sleep) -> None:
        """Writes and removes a probe. `wait` sleeps between attempts at a server that does not answer."""
        deadline = time.monotonic() + patience_seconds
        pauses = backoff.Pauses(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return self._probe()
            except StorageError:
                if not backoff.wait(pauses.take(), deadline, sleep=wait):
                    raise

    def _probe(self) -> None:
        with self._errors():
            try:
                # some servers make a missing bucket at the first put: asked first, a typing error shows
                self._client.head_bucket(Bucket=self._bucket)
            except self._client.exceptions.ClientError as error:
                # a key may be allowed to write here and not to look at the bucket; the put below decides
                if code_of(error) in ("404", "NoSuchBucket"):
                    raise
            self._client.put_object(Bucket=self._bucket, Key=self._key(_PROBE), Body=b"")
            try:
                self._client.delete_object(Bucket=self._bucket, Key=self._key(_PROBE))
            except self._client.exceptions.ClientError as error:
                # results can be kept in a bucket that refuses every deletion
                if code_of(error) not in REFUSED:
                    raise

    def put(self, key: str, path: Path) -> None:
        with self._errors():
            self._client.upload_file(str(path), self._bucket, self._key(key), Config=_transfer())

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._errors():
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

    def create(self, key: str, data: bytes, *, wait: Callable[[float], None] = time.sleep) -> bool:
        """Stores a file that is not there yet; False where one is. Of two who do so at once one gets True.

        Servers that know If-None-Match see to it. Elsewhere the last one to write has it, which shows after a while.
        `data` is no one else's.
        """
        if self.get_bytes(key) is not None or self._put_new(key, data) is False:
            # a request that was sent again may find what it has itself put there
            return self.get_bytes(key) == data
        if self._put_new(key, data) is False:
            return True
        self.put_bytes(key, data)
        wait(_SETTLING_SECONDS)
        return self.get_bytes(key) == data

    def _put_new(self, key: str, data: bytes) -> bool | None:
        """Whether a file was put where none was; None when the server knows no such condition."""
        with self._errors():
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                if code_of(error) in _NOT_NEW:
                    return False
                if code_of(error) in _UNCONDITIONAL:
                    return None
                raise
        return True

    def age_seconds(self, key: str) -> float | None:
        """How long ago a file was written, by the server's own clock; None when it is not there."""
        with self._errors(key):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
            except self._client.exceptions.ClientError as error:
                if code_of(error) in NO_SUCH_KEY:
                    return None
                raise
        now = head["ResponseMetadata"]["HTTPHeaders"].get("date")
        there = parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, there - head["LastModified"].timestamp())

    def get(self, key: str, path: Path) -> None:
        with self._errors(key):
            self._client.download_file(self._bucket, self._key(key), str(path), Config=_transfer())

    def get_bytes(self, key: str) -> bytes | None:
        with self._errors(key):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()
            except self._client.exceptions.ClientError as error:
                if code_of(error) in NO_SUCH_KEY:
                    return None
                raise

    def list(self, prefix: str = "") -> list[Entry]:
        base = self._prefix + "/" if self._prefix else ""
        wanted = check_key(prefix) if prefix else ""
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=base + wanted)
            items = [item for page in pages for item in page.get("Contents", [])]
        found = [Entry(item["Key"].removeprefix(base), item["Size"]) for item in items]
        # consoles make a key that ends with a slash for an empty folder: it is none of our files
        found = [entry for entry in found if is_key(entry.key)]
        # S3 compares letters, not names: logs-old/x begins with logs too
        return [entry for entry in found if not wanted or entry.key == wanted or entry.key.startswith(wanted + "/")]

    def delete(self, keys: Iterable[str]) -> None:
        # one by one: the request for many needs a checksum header that servers disagree about, and there are few
        for key in keys:
            with self._errors():
                self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}/{key}" if self._prefix else key

    def _errors(self, key: str | None = None) -> AbstractContextManager[None]:
        return s3_errors.translated(self.uri, self._bucket, self._server, key)


def _client(environment: Environment, keys: Keys | None) -> S3Client:
    import boto3
    from botocore.config import Config

    if environment.s3_ca_bundle and not Path(environment.s3_ca_bundle).is_file():
        raise ConfigError(f"AWS_CA_BUNDLE is {environment.s3_ca_bundle!r}: there is no such file")
    if environment.s3_endpoint is not None:
        _check_endpoint(environment.s3_endpoint)
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        s3={"addressing_style": environment.s3_addressing},
        # checksums in trailers are refused by several servers that speak S3; every file has its hash in a manifest
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
    )
    arguments: dict[str, Any] = {
        "endpoint_url": environment.s3_endpoint,
        "region_name": environment.s3_region or "us-east-1",
        "verify": environment.s3_ca_bundle,
        "config": config,
    }
    session = boto3.session.Session(
        aws_access_key_id=keys.access_key if keys else None,
        aws_secret_access_key=keys.secret_key if keys else None,
        aws_session_token=keys.session_token if keys else None,
    )
    return session.client("s3", **arguments)


def _check_endpoint(endpoint: str) -> None:
    """Raises ConfigError for what is no address of a server, and shows neither user nor password in it."""
    try:
        parts = urlsplit(endpoint)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    if not is_right or not endpoint.isprintable() or " " in endpoint:
        raise ConfigError(
            f"AWS_ENDPOINT_URL_S3 is {endpoint.rpartition('@')[2]!r}: it must be like https://host:port",
            hint="correct it; in a cluster it is the platform's storage.endpoint, or a key of the Secret for storage",
        )


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4)
