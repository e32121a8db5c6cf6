"""Storage in a plain folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import ConfigError, StorageError
from lorajob_runtime.storage.open import open_store, run_folder
from lorajob_runtime.storage.store import Entry, Store
from lorajob_runtime.system.environment import Environment

Settings = Callable[..., Environment]


@pytest.fixture
def store(tmp_path: Path, settings: Settings) -> Store:
    return open_store(str(tmp_path / "runs"), "n", settings())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode != 0:
        pytest.skip("a full disk needs a file system of its own: this user may not mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_put_file_is_a_link_and_not_a_second_copy(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")

    store.put("adapter/adapter_model.safetensors", source)
    store.put("adapter/adapter_model.safetensors", source)

    kept = tmp_path / "runs/n/adapter/adapter_model.safetensors"
    assert kept.samefile(source)
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_put_file_is_copied_where_links_do_not_reach(tmp_path: Path, settings: Settings, small_disk: Path) -> None:
    store = open_store(str(small_disk), "n", settings())
    source = tmp_path / "source"
    source.write_bytes(b"weights")

    store.put("a", source)

    assert (small_disk / "n/a").read_bytes() == b"weights"


def test_what_is_put_comes_back_and_is_listed(store: Store, tmp_path: Path) -> None:
    store.put_bytes("logs/attempt-1/rank-0.log.gz", b"12")
    store.put_bytes("logs-old", b"1")

    store.get("logs-old", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"1"
    assert store.get_bytes("nothing") is None
    assert store.list("logs") == [Entry("logs/attempt-1/rank-0.log.gz", 2)]
    assert [entry.key for entry in store.list()] == ["logs-old", "logs/attempt-1/rank-0.log.gz"]
    assert store.list("never") == []


def test_the_check_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    store.check(patience_seconds=0)

    assert list((tmp_path / "runs/n").iterdir()) == []


@pytest.mark.parametrize("key", ["../other/spec.json", "/etc/passwd", "a/../../b"])
def test_no_key_leaves_the_folder(store: Store, key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a key"):
        store.put_bytes(key, b"")


def test_no_link_inside_the_folder_leads_out_of_it(store: Store, tmp_path: Path) -> None:
    store.check(patience_seconds=0)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs/n/adapter").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="leads out of"):
        store.put_bytes("adapter/README.md", b"")


def test_a_file_in_the_place_of_the_folder_is_a_config_error_that_names_it(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "runs").write_text("")

    with pytest.raises(ConfigError, match=f"cannot write to {tmp_path}/runs"):
        open_store(str(tmp_path / "runs"), "n", settings()).check(patience_seconds=0)


def test_a_folder_that_nobody_may_write_is_a_config_error(small_disk: Path, settings: Settings) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(ConfigError, match=f"cannot write to {small_disk}/n: Read-only file system"):
        open_store(str(small_disk), "n", settings()).check(patience_seconds=0)


def test_a_full_disk_is_a_storage_error_that_names_the_file(small_disk: Path, settings: Settings) -> None:
    store = open_store(str(small_disk), "n", settings())
    store.put_bytes("kept", b"old")

    with pytest.raises(StorageError, match=f"cannot write {small_disk}/n/kept: No space left on device"):
        store.put_bytes("kept", bytes(2 << 20))

    assert store.get_bytes("kept") == b"old"
    assert [entry.key for entry in store.list()] == ["kept"]


def test_the_work_folder_lies_beside_local_results_and_in_the_work_place_for_remote_ones(
    tmp_path: Path, settings: Settings
) -> None:
    environment = settings()

    assert run_folder(str(tmp_path), "n", environment).root == tmp_path / ".work/n"
    remote = run_folder("s3://bucket/a/", "n", environment).root
    assert remote == run_folder("s3://bucket/a", "n", environment).root
    assert remote.parent.parent == environment.work
    assert remote != run_folder("s3://bucket/b", "n", environment).root
