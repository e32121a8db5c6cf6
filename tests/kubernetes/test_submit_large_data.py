"""Data that is too large for the cluster's objects goes to storage, once."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from made_runs import PLATFORM_FILE, lorajob
from submitting import client, left, one_error, rows

from calling import Call
from lorajob.cluster import Cluster
from lorajob_runtime.contract.kubernetes import SPEC_ANNOTATION
from s3_servers import S3Server

__all__ = ["client", "lorajob", "rows"]


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A dataset that does not fit into a ConfigMap."""
    noise = random.Random(1).randbytes(1_500_000).hex()
    (tmp_path / "large.json").write_text(json.dumps([{"input": "a", "output": noise}]))
    return "large.json"


@pytest.fixture
def storage(s3_server: S3Server, tmp_path: Path, lorajob: Call, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket that the platform's storage is in; no key for it is in the environment."""
    bucket = s3_server.make_bucket()
    endpoint = f"storage: {{uri: s3://{bucket}/lora, endpoint: '{s3_server.endpoint}', addressing: path}}\n"
    lines = [line for line in PLATFORM_FILE.splitlines() if not line.startswith("storage")]
    (tmp_path / "platform.yaml").write_text("\n".join(lines) + "\n" + endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return bucket


def test_large_data_goes_to_storage_once(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)

    first = lorajob("submit", "-d", large, "--name", "first")
    second = lorajob("submit", "-d", large, "--name", "second")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    [key] = s3_server.keys(storage)
    assert key.startswith("lora/.data/")
    assert f"uploaded s3://{storage}/{key}" in first.err.splitlines()
    assert f"uploaded s3://{storage}/{key}" not in second.err.splitlines()
    assert left(client) == ["job/first", "job/second"]
    job = client.get(client.jobs("first"))
    assert f"s3://{storage}/{key}" in job["spec"]["template"]["metadata"]["annotations"][SPEC_ANNOTATION]


def test_the_key_of_the_platforms_secret_does_where_the_user_has_none(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    metadata = {"name": "lorajob-storage"}
    client.post(client.secrets(), {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})

    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 0, outcome.err
    assert len(s3_server.keys(storage)) == 1


def test_large_data_without_any_key_is_one_line_and_nothing_is_created(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 13
    assert f"no S3 key for s3://{storage}/lora" in one_error(outcome.err)
    assert left(client) == []
    assert s3_server.keys(storage) == []


def test_large_data_under_a_name_that_is_taken_is_not_sent(
    lorajob: Call, client: Cluster, s3_server: S3Server, storage: str, large: str
) -> None:
    lorajob("submit", "--name", "first")

    outcome = lorajob("submit", "-d", large, "--name", "first")

    assert outcome.code == 2
    assert s3_server.keys(storage) == []
    assert left(client) == ["job/first"]
