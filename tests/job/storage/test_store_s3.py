"""Storage in S3, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import ConfigError, CredentialsError, LorajobError, StorageError
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.storage.store import Entry, Store
from lorajob_runtime.system import environment
from lorajob_runtime.system.environment import Environment

Settings = Callable[..., Environment]


@pytest.fixture
def bucket(s3_keys) -> str:
    return s3_keys.make_bucket()


@pytest.fixture
def store(s3_keys, settings: Settings, bucket: str) -> Store:
    return open_store(f"s3://{bucket}/team/a/", "zhenhuan", settings(s3_endpoint=s3_keys.endpoint))


def test_the_check_of_good_storage_leaves_nothing_behind(store: Store, s3_keys, bucket: str) -> None:
    store.check(patience_seconds=0)

    assert s3_keys.keys(bucket) == []


def test_what_is_put_comes_back_below_the_prefix_of_the_run(store: Store, s3_keys, bucket: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"weights")

    store.put("checkpoints/step-000001/adapter_model.safetensors", source)
    store.put_bytes("events.jsonl", b"{}\n")
    store.get("checkpoints/step-000001/adapter_model.safetensors", target)

    assert target.read_bytes() == b"weights"
    assert store.get_bytes("events.jsonl") == b"{}\n"
    assert s3_keys.keys(bucket) == [
        "team/a/zhenhuan/checkpoints/step-000001/adapter_model.safetensors",
        "team/a/zhenhuan/events.jsonl",
    ]
    assert store.uri == f"s3://{bucket}/team/a/zhenhuan"


def test_a_file_of_several_parts_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (70 << 12))

    store.put("big", source)
    store.get("big", target)

    assert target.read_bytes() == source.read_bytes()


def test_a_listing_names_what_is_below_a_prefix_and_not_what_only_begins_alike(store: Store) -> None:
    for key in ("logs/attempt-1/rank-0.log.gz", "logs-old", "logs/attempt-2/rank-0.log.gz"):
        store.put_bytes(key, b"12")

    listed = store.list("logs")

    assert listed == [Entry("logs/attempt-1/rank-0.log.gz", 2), Entry("logs/attempt-2/rank-0.log.gz", 2)]


def test_what_others_put_there_and_cannot_be_a_file_of_a_run_is_left_out_and_hinders_nothing(
    store: Store, s3_keys, bucket: str
) -> None:
    store.put_bytes("adapter/a", b"1")
    for marker in ("", "checkpoints/", "adapter/"):
        s3_keys.client().put_object(Bucket=bucket, Key=f"team/a/zhenhuan/{marker}", Body=b"")

    assert store.list() == store.list("adapter") == [Entry("adapter/a", 1)]
    store.delete(entry.key for entry in store.list())

    assert store.list() == []


def test_deleting_removes_files_and_does_not_mind_those_that_are_gone(store: Store) -> None:
    store.put_bytes("a", b"1")

    store.delete(["a", "never-there"])

    assert store.get_bytes("a") is None


def test_a_file_that_is_not_there_is_a_storage_error_that_names_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="zhenhuan/adapter/gone is not there"):
        store.get("adapter/gone", tmp_path / "gone")


@pytest.mark.parametrize("key", ["../other/spec.json", "/etc/passwd", "a//b", "", "a/../../b", "a\\b", "a\n"])
def test_no_key_leaves_the_prefix(store: Store, key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a key"):
        store.put_bytes(key, b"")


def test_a_missing_bucket_is_a_config_error_that_names_it(s3_keys, settings: Settings) -> None:
    store = open_store("s3://never-made/x", "n", settings(s3_endpoint=s3_keys.endpoint))

    with pytest.raises(ConfigError, match="bucket 'never-made' does not exist"):
        store.check(patience_seconds=0)


@pytest.mark.parametrize(
    ("key", "secret"), [("NOBODY", "test-secret"), ("TESTKEY", "wrong-secret"), ("READKEY", "read-secret")]
)
def test_a_key_that_may_not_write_is_a_credentials_error_without_the_secret(
    s3_keys, settings: Settings, bucket: str, monkeypatch: pytest.MonkeyPatch, key: str, secret: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = open_store(f"s3://{bucket}", "n", settings(s3_endpoint=s3_keys.endpoint))

    with pytest.raises(CredentialsError) as raised:
        store.check(patience_seconds=30)

    assert secret not in str(raised.value)
    assert bucket in str(raised.value)


def test_a_refused_upload_of_a_file_is_a_credentials_error_too(
    s3_keys, settings: Settings, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "READKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "read-secret")
    store = open_store(f"s3://{bucket}", "n", settings(s3_endpoint=s3_keys.endpoint))
    (tmp_path / "file").write_bytes(b"x")

    with pytest.raises(CredentialsError, match="AccessDenied"):
        store.put("file", tmp_path / "file")


def test_no_key_at_all_is_a_credentials_error_that_says_which_variables(
    s3_keys, settings: Settings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store(f"s3://{bucket}", "n", settings(s3_endpoint=s3_keys.endpoint))

    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        store.check(patience_seconds=0)


@pytest.mark.parametrize("endpoint", ["http://user:geheim@127.0.0.1:1", "http://nothing.invalid"])
def test_a_server_that_does_not_answer_is_a_storage_error_after_the_patience(
    s3_keys, settings: Settings, endpoint: str
) -> None:
    store = open_store("s3://bucket", "n", settings(s3_endpoint=endpoint))

    with pytest.raises(StorageError, match="does not answer") as raised:
        store.check(patience_seconds=1.5)

    assert "geheim" not in str(raised.value)


def test_a_server_that_comes_up_in_time_is_good_enough(s3_keys, settings: Settings, bucket: str, s3_proxy) -> None:
    store = open_store(f"s3://{bucket}", "n", settings(s3_endpoint=s3_proxy.endpoint))
    s3_proxy.cut()

    store.check(patience_seconds=20, wait=lambda _: s3_proxy.restore())  # type: ignore[call-arg]

    assert store.list() == []


@pytest.mark.parametrize(
    ("uri", "endpoint", "message"),
    [
        ("s3://", None, "names no bucket"),
        ("s3:///prefix", None, "names no bucket"),
        ("s3://bucket/../other", None, "cannot be a key"),
        ("gs://bucket/x", None, "must be s3://bucket/prefix or a folder"),
        ("", None, "must be s3://bucket/prefix or a folder"),
        ("s3://bucket", "not-an-address", "must be like https://host:port"),
        ("s3://bucket", "minio:9000", "AWS_ENDPOINT_URL_S3 is 'minio:9000'"),
        ("s3://bucket", "http://minio:99999", "must be like https://host:port"),
        ("s3://bucket", "ftp://minio", "must be like https://host:port"),
        ("s3://bucket", "http://minio:9000\nhttp://other", "must be like https://host:port"),
    ],
)
def test_an_address_that_cannot_be_right_is_a_config_error(
    settings: Settings, uri: str, endpoint: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(uri, "n", settings(s3_endpoint=endpoint))


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("around", ["{}\n", " {}", "{}\r\n"])
def test_white_space_around_what_a_secret_holds_changes_nothing(
    s3_keys, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, around: str
) -> None:
    monkeypatch.setenv(name, around.format(s3_keys.variables()[name]))

    open_store(f"s3://{bucket}", "n", environment.read()).check(patience_seconds=0)


def test_a_key_with_a_line_break_inside_is_called_a_wrong_key(
    s3_keys, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "TEST\nKEY")

    with pytest.raises(CredentialsError, match="a character in it that no key has"):
        open_store(f"s3://{bucket}", "n", environment.read()).check(patience_seconds=0)


def test_https_to_a_server_without_it_is_a_config_error(s3_keys, settings: Settings, bucket: str) -> None:
    endpoint = s3_keys.endpoint.replace("http://", "https://")

    with pytest.raises(ConfigError, match="must begin with http://"):
        open_store(f"s3://{bucket}", "n", settings(s3_endpoint=endpoint)).check(patience_seconds=0)


def test_a_certificate_file_that_is_not_there_is_a_config_error(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE is '/no/such\.pem'"):
        open_store("s3://bucket", "n", settings(s3_ca_bundle="/no/such.pem"))


def test_storage_that_is_cut_off_between_two_files_is_a_storage_error(
    s3_keys, settings: Settings, bucket: str, s3_proxy, tmp_path: Path
) -> None:
    store = open_store(f"s3://{bucket}", "n", settings(s3_endpoint=s3_proxy.endpoint))
    (tmp_path / "file").write_bytes(b"x")
    store.put("one", tmp_path / "file")
    s3_proxy.cut()

    with pytest.raises(LorajobError) as raised:
        store.put("two", tmp_path / "file")

    assert isinstance(raised.value, StorageError)
