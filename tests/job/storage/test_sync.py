"""What lies in storage is whole at every moment, wherever an upload is broken off."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.contract.layout import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST,
    OPTIMIZER,
    STATE,
    RunFolder,
    checkpoint_key,
)
from lorajob_runtime.contract.plain_files import NotPlainError
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.storage.folder import FolderStore
from lorajob_runtime.storage.store import Entry
from lorajob_runtime.storage.sync import StorageSync


class WatchedStore(FolderStore):
    """Notes every change, and breaks off before the change with the number `breaks_at`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.changes: list[str] = []
        self.breaks_at: int | None = None

    def put(self, key: str, path: Path) -> None:
        self._note(f"put {key}")
        super().put(key, path)

    def put_bytes(self, key: str, data: bytes) -> None:
        self._note(f"put {key}")
        super().put_bytes(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._note(f"delete {key}")
            super().delete([key])

    def _note(self, change: str) -> None:
        if len(self.changes) == self.breaks_at:
            raise StorageError("storage is away")
        self.changes.append(change)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "storage")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def save(folder: RunFolder, step: int, content: str = "") -> None:
    """A finished checkpoint and its line in the log."""

    def write(draft: Path) -> None:
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, OPTIMIZER, STATE):
            (draft / name).write_text(f"{name} of step {step} {content}")

    with EventLog(folder.events) as log:
        log.append("step", step=step)
    checkpoint.save(folder, step, write)


def whole_checkpoints(store: FolderStore, target: Path) -> list[int]:
    """Steps of the checkpoints in storage that have a manifest, each of which must be what its manifest says."""
    keys = [entry.key for entry in store.list("checkpoints")]
    steps = [int(key.split("-")[1].split("/")[0]) for key in keys if key.endswith(MANIFEST)]
    assert all(checkpoint.verify(target / checkpoint_key(step)) for step in steps)
    return steps


def test_the_manifest_goes_last_and_after_the_log(store: WatchedStore, folder: RunFolder) -> None:
    save(folder, 1)

    StorageSync(store, folder, keep=3).checkpoints()

    files = [checkpoint_key(1, name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, OPTIMIZER, STATE)]
    assert store.changes == [f"put {key}" for key in [*files, "events.jsonl", checkpoint_key(1, MANIFEST)]]


def test_wherever_an_upload_is_broken_off_no_half_checkpoint_is_seen_and_the_next_start_ends_it(
    tmp_path: Path, folder: RunFolder
) -> None:
    save(folder, 1)
    save(folder, 2)
    for breaks_at in range(30):
        store = WatchedStore(tmp_path / f"storage-{breaks_at}")
        store.breaks_at = breaks_at
        try:
            StorageSync(store, folder, keep=1).checkpoints()
        except StorageError:
            whole_checkpoints(store, tmp_path / f"storage-{breaks_at}")
            store.breaks_at = None
            StorageSync(store, folder, keep=1).checkpoints()
        else:
            assert breaks_at > 5
        assert whole_checkpoints(store, tmp_path / f"storage-{breaks_at}") == [1, 2]
        assert [entry.key for entry in store.list() if entry.key.endswith(OPTIMIZER)] == [checkpoint_key(2, OPTIMIZER)]


def test_wherever_retention_is_broken_off_every_manifest_tells_the_truth(tmp_path: Path, folder: RunFolder) -> None:
    for breaks_at in range(12):
        root = tmp_path / f"storage-{breaks_at}"
        here = RunFolder(tmp_path / f"run-{breaks_at}")
        store = WatchedStore(root)
        mirror = StorageSync(store, here, keep=1)
        save(here, 1)
        mirror.checkpoints()
        save(here, 2)
        store.breaks_at = len(store.changes) + breaks_at
        try:
            mirror.checkpoints()
        except StorageError:
            whole_checkpoints(store, root)
        store.breaks_at = None
        StorageSync(store, here, keep=1).checkpoints()

        assert whole_checkpoints(store, root) == [1, 2]
        left = [entry.key for entry in store.list() if entry.key.endswith((OPTIMIZER, STATE))]
        assert left == [checkpoint_key(2, OPTIMIZER), checkpoint_key(2, STATE)]


def test_a_second_try_begins_where_the_first_broke_off(store: WatchedStore, folder: RunFolder) -> None:
    save(folder, 1)
    mirror = StorageSync(store, folder, keep=3)
    store.breaks_at = 3
    with pytest.raises(StorageError):
        mirror.checkpoints()
    store.breaks_at = None

    mirror.checkpoints()

    assert len(store.changes) == len(set(store.changes)) == 6


def test_the_newest_checkpoint_is_uploaded_first(store: WatchedStore, folder: RunFolder) -> None:
    for step in (1, 2, 3):
        save(folder, step)

    StorageSync(store, folder, keep=3).checkpoints()

    manifests = [change for change in store.changes if change.endswith(MANIFEST)]
    assert manifests == [f"put {checkpoint_key(step, MANIFEST)}" for step in (3, 2, 1)]


def test_nothing_is_uploaded_twice_also_by_another_start(store: WatchedStore, folder: RunFolder) -> None:
    save(folder, 1)
    StorageSync(store, folder, keep=3).checkpoints()
    before = list(store.changes)

    StorageSync(store, folder, keep=3).checkpoints()

    assert store.changes == before


def test_another_checkpoint_of_the_same_step_replaces_what_storage_has(
    store: WatchedStore, folder: RunFolder, tmp_path: Path
) -> None:
    save(folder, 1)
    StorageSync(store, folder, keep=3).checkpoints()
    save(folder, 1, content="made again")
    store.changes.clear()

    StorageSync(store, folder, keep=3).checkpoints()

    assert store.changes[0] == f"delete {checkpoint_key(1, MANIFEST)}"
    assert whole_checkpoints(store, tmp_path / "storage") == [1]
    assert "made again" in (tmp_path / "storage" / checkpoint_key(1, OPTIMIZER)).read_text()


def test_retention_counts_checkpoints_that_only_storage_has(
    store: WatchedStore, folder: RunFolder, tmp_path: Path
) -> None:
    for step in (1, 2):
        save(folder, step)
    StorageSync(store, folder, keep=2).checkpoints()
    elsewhere = RunFolder(tmp_path / "another-machine")
    save(elsewhere, 3)

    StorageSync(store, elsewhere, keep=2).checkpoints()

    kept = [entry.key for entry in store.list() if entry.key.endswith(OPTIMIZER)]
    assert kept == [checkpoint_key(2, OPTIMIZER), checkpoint_key(3, OPTIMIZER)]
    assert store.get_bytes(checkpoint_key(1, ADAPTER_WEIGHTS)) is not None


def test_the_log_is_uploaded_up_to_its_last_whole_line_and_only_when_it_grew(
    store: WatchedStore, folder: RunFolder
) -> None:
    folder.root.mkdir(parents=True)
    folder.events.write_text('{"event": "step", "step": 1}\n{"event": "st')
    mirror = StorageSync(store, folder, keep=3)

    mirror.events()
    mirror.events()

    assert store.get_bytes("events.jsonl") == b'{"event": "step", "step": 1}\n'
    assert store.changes == ["put events.jsonl"]


def test_logs_are_compressed_and_those_of_earlier_attempts_are_uploaded_once(
    store: WatchedStore, folder: RunFolder
) -> None:
    for attempt in (1, 2):
        log = folder.log(attempt, 0)
        log.parent.mkdir(parents=True)
        log.write_text(f"attempt {attempt}\n")
    store.put_bytes("logs/attempt-1/rank-0.log.gz", b"stored before")

    StorageSync(store, folder, keep=3).logs(whole=True)

    assert gzip.decompress(store.get_bytes("logs/attempt-2/rank-0.log.gz") or b"") == b"attempt 2\n"
    assert store.list("logs/attempt-1") == [Entry("logs/attempt-1/rank-0.log.gz", len(b"stored before"))]


def link_log(folder: RunFolder, secret: Path) -> None:
    folder.log(1, 0).unlink()
    folder.log(1, 0).symlink_to(secret / "rank-0.log")


def link_attempt(folder: RunFolder, secret: Path) -> None:
    shutil.rmtree(folder.log(1, 0).parent)
    folder.log(1, 0).parent.symlink_to(secret)


def pipe_log(folder: RunFolder, secret: Path) -> None:
    folder.log(1, 0).unlink()
    os.mkfifo(folder.log(1, 0))


def link_events(folder: RunFolder, secret: Path) -> None:
    folder.events.unlink()
    folder.events.symlink_to(secret / "rank-0.log")


def link_weights(folder: RunFolder, secret: Path) -> None:
    (folder.checkpoint(1) / ADAPTER_WEIGHTS).unlink()
    (folder.checkpoint(1) / ADAPTER_WEIGHTS).symlink_to(secret / "rank-0.log")


def link_checkpoint(folder: RunFolder, secret: Path) -> None:
    shutil.move(folder.checkpoint(1), secret / "checkpoint")
    (secret / "checkpoint" / ADAPTER_WEIGHTS).write_text("a-key")
    folder.checkpoint(1).symlink_to(secret / "checkpoint")


def link_sinks(folder: RunFolder, secret: Path) -> None:
    folder.sinks.parent.mkdir()
    folder.sinks.symlink_to(secret / "rank-0.log")


def link_swanlog(folder: RunFolder, secret: Path) -> None:
    folder.report("swanlog").symlink_to(secret)


@pytest.mark.parametrize(
    "put",
    [
        link_log,
        link_attempt,
        pipe_log,
        link_events,
        link_weights,
        link_checkpoint,
        link_sinks,
        link_swanlog,
    ],
)
def test_what_training_puts_in_the_place_of_its_files_brings_no_other_file_into_storage(
    store: WatchedStore, folder: RunFolder, tmp_path: Path, put: Callable[[RunFolder, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "rank-0.log").write_text("a-key\n")
    save(folder, 1)
    folder.log(1, 0).parent.mkdir(parents=True)
    folder.log(1, 0).write_text("a line\n")
    put(folder, secret)
    mirror = StorageSync(store, folder, keep=3, reports=["swanlog"])

    def upload_all() -> None:
        for upload in (mirror.checkpoints, mirror.reports, mirror.logs, mirror.events):
            upload()

    with pytest.raises(NotPlainError, match="is not a regular file"):
        upload_all()

    everything = b"".join(path.read_bytes() for path in (tmp_path / "storage").rglob("*") if path.is_file())
    assert b"a-key" not in everything


def test_a_link_among_what_swanlab_wrote_is_passed_over(store: WatchedStore, folder: RunFolder, tmp_path: Path) -> None:
    (folder.report("swanlog") / "run-1").mkdir(parents=True)
    (folder.report("swanlog") / "run-1/data").write_text("a point")
    (folder.report("swanlog") / "latest").symlink_to("run-1")
    (folder.report("swanlog") / "key").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("a-key")

    StorageSync(store, folder, keep=3, reports=["swanlog"]).reports()

    assert store.list() == [Entry("swanlog/run-1/data", len(b"a point"))]
