"""Files that grow, in storage that only takes whole ones."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import CredentialsError, StorageError
from lorajob_runtime.storage import appended_files
from lorajob_runtime.storage.appended_files import GrowingFile
from lorajob_runtime.storage.folder import FolderStore

KEYS = ["events.jsonl", "logs/attempt-1/rank-0.log.gz"]


class CountingStore(FolderStore):
    """Counts the bytes that are put; each change fails with a chance, before it is made or after."""

    def __init__(self, root: Path, *, failures: float = 0, seed: int = 0) -> None:
        super().__init__(root)
        self.bytes_put = 0
        self.failures = failures
        self._rng = random.Random(seed)

    def put(self, key: str, path: Path) -> None:
        self.bytes_put += path.stat().st_size
        self._perhaps_fail()
        super().put(key, path)
        self._perhaps_fail()

    def put_bytes(self, key: str, data: bytes) -> None:
        self.bytes_put += len(data)
        self._perhaps_fail()
        super().put_bytes(key, data)
        self._perhaps_fail()

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._perhaps_fail()
            super().delete([key])

    def _perhaps_fail(self) -> None:
        if self._rng.random() < self.failures:
            raise StorageError("storage is away")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.mark.parametrize("key", KEYS)
def test_what_was_added_is_read_back_while_it_grows_and_is_one_file_at_the_end(tmp_path: Path, key: str) -> None:
    store, path = FolderStore(tmp_path / "store"), tmp_path / "file"
    log = GrowingFile(store, key, path)
    log.consolidate()
    for number in range(600):
        append(path, f"line {number}\n")
        log.add()
        if number % 37 == 0:
            assert appended_files.read(store, key) == path.read_bytes()
    assert len(store.list()) < 40, "many small parts become few"

    log.consolidate()

    assert [entry.key for entry in store.list()] == [key]
    whole = store.get_bytes(key) or b""
    assert (gzip.decompress(whole) if key.endswith(".gz") else whole) == path.read_bytes()


def test_the_bytes_uploaded_grow_with_the_file_and_not_with_its_square(tmp_path: Path) -> None:
    costs = []
    for flushes in (200, 800, 3200):
        store, path = CountingStore(tmp_path / f"store-{flushes}"), tmp_path / f"file-{flushes}"
        log = GrowingFile(store, "events.jsonl", path)
        log.consolidate()
        for number in range(flushes):
            append(path, f"{number:099d}\n")
            log.add()
        log.consolidate()
        costs.append(store.bytes_put / path.stat().st_size)

    # each byte once as it comes, once for each level of joining, and once at the end
    assert max(costs) < 5.5


@pytest.mark.parametrize("key", KEYS)
def test_parts_of_another_attempt_are_never_taken_for_a_continuation(tmp_path: Path, key: str) -> None:
    store, path = FolderStore(tmp_path / "store"), tmp_path / "file"
    first = GrowingFile(store, key, path)
    first.consolidate()
    for number in range(5):
        append(path, f"first {number}\n")
        first.add()
    leftover = [entry.key for entry in store.list()]
    kept = {name: store.get_bytes(name) for name in leftover}

    path.write_text("first 0\nfirst 1\n")
    second = GrowingFile(store, key, path)
    second.consolidate()
    append(path, "second 2\n")
    second.add()
    for name in leftover:
        if name != key and store.get_bytes(name) is None:
            store.put_bytes(name, kept[name] or b"")

    assert appended_files.read(store, key) == b"first 0\nfirst 1\nsecond 2\n"


def test_a_torn_last_line_waits_where_lines_are_to_be_whole(tmp_path: Path) -> None:
    store, path = FolderStore(tmp_path / "store"), tmp_path / "file"
    log = GrowingFile(store, "events.jsonl", path, whole_lines=True)
    append(path, "one\ntw")
    log.add()
    assert appended_files.read(store, "events.jsonl") == b"one\n"

    append(path, "o\nthr")
    log.consolidate()

    assert appended_files.read(store, "events.jsonl") == store.get_bytes("events.jsonl") == b"one\ntwo\n"


def test_a_bucket_that_lets_nothing_be_deleted_is_a_fine_place_for_logs(tmp_path: Path) -> None:
    class Keeping(FolderStore):
        def delete(self, keys: Iterable[str]) -> None:
            if list(keys):
                raise CredentialsError("refuses access (AccessDenied)")

    store, path = Keeping(tmp_path / "store"), tmp_path / "file"
    log = GrowingFile(store, "events.jsonl", path)
    for number in range(40):
        append(path, f"{number}\n")
        log.add()
    assert appended_files.read(store, "events.jsonl") == path.read_bytes()

    log.consolidate()
    append(path, "more\n")
    log.add()

    assert appended_files.read(store, "events.jsonl") == path.read_bytes()


def test_a_log_of_an_earlier_version_is_read_as_it_is(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put_bytes(KEYS[1], gzip.compress(b"a\nb\n"))

    assert appended_files.read(store, KEYS[1]) == b"a\nb\n"
    assert appended_files.read(store, "logs/attempt-2/rank-0.log.gz") == b""


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    failures=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    sizes=st.lists(st.integers(0, 30), min_size=45, max_size=120),
    key=st.sampled_from(KEYS),
)
def test_whatever_fails_what_is_read_is_a_beginning_of_the_file_and_at_last_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, seed: int, failures: float, sizes: list[int], key: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    store, path = CountingStore(folder / "store", failures=failures, seed=seed), folder / "file"
    log = GrowingFile(store, key, path)
    read_before = 0
    for number, size in enumerate(sizes):
        append(path, f"{number}" * size)
        try:
            (log.consolidate if number % 50 == 49 else log.add)()
        except StorageError:
            pass
        else:
            assert appended_files.read(store, key) == path.read_bytes()
        there = appended_files.read(store, key)
        assert path.read_bytes().startswith(there)
        assert len(there) >= read_before, "what was there once stays"
        read_before = len(there)

    store.failures = 0
    log.consolidate()

    assert appended_files.read(store, key) == path.read_bytes()
    assert len(store.list()) <= 1
