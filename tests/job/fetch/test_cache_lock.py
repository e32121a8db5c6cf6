"""One writer at a time, and no lock that outlives its holder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.fetch.cache_lock import Holder, WriterLock
from waiting import wait_until


def quick(path: Path, **changes: object) -> WriterLock:
    settings: dict[str, object] = {"heartbeat_seconds": 0.05, "stale_seconds": 2, "poll_seconds": 0.01} | changes
    return WriterLock(path, **settings)  # type: ignore[arg-type]


def left_by(path: Path, **changes: object) -> None:
    """A lock file as a holder on another machine leaves it behind."""
    holder = Holder(token="other", host="node-7", space="another machine", pid=1, started="1")
    path.write_text(json.dumps(asdict(holder) | changes))


def test_only_one_is_inside_and_the_next_comes_after_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        with quick(path):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 8
    assert list(tmp_path.iterdir()) == []


def test_a_living_holder_is_waited_for_longer_than_a_dead_one_would_be(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waited_for: list[Holder] = []
    got_in = threading.Event()

    def enter() -> None:
        with quick(path, on_wait=waited_for.append):
            got_in.set()

    with quick(path):
        waiter = threading.Thread(target=enter)
        waiter.start()
        wait_until(lambda: waited_for)
        assert not got_in.wait(4), "twice the time after which a lock is stale"
    assert got_in.wait(60)
    waiter.join()
    assert [holder.pid for holder in waited_for] == [os.getpid()]


def test_a_lock_that_nobody_touches_any_more_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    left_by(path)
    waited_for: list[Holder] = []

    with quick(path, on_wait=waited_for.append) as lock:
        lock.check_held()

    assert [holder.host for holder in waited_for] == ["node-7"]
    assert list(tmp_path.iterdir()) == []


def test_a_torn_lock_file_grows_stale_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text('{"token": "ab')

    with quick(path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_holder_of_this_machine_that_was_killed_is_known_to_be_gone_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"""
import pathlib, signal
from lorajob_runtime.fetch.cache_lock import WriterLock
with WriterLock(pathlib.Path({str(path)!r})):
    print("inside", flush=True)
    signal.pause()
"""
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "inside\n"
    holder.kill()
    holder.wait()

    with quick(path, stale_seconds=3600):
        pass


def test_a_holder_that_was_taken_for_dead_learns_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with quick(path) as lock:
        left_by(path)
        with pytest.raises(StorageError, match="taken over by another process"):
            lock.check_held()
    assert json.loads(path.read_text())["token"] == "other", "the new holder keeps its lock"


def test_of_many_that_take_over_a_stale_lock_only_one_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    left_by(path)
    order: list[str] = []

    def enter() -> None:
        with quick(path):
            order.append("in")
            order.append("out")

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert order == ["in", "out"] * 6


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_a_storage_error_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)

    with pytest.raises(StorageError) as raised, quick(tmp_path / "lock"):
        pass

    assert raised.value.message == f"the model cache cannot be written: {os.strerror(number)}: {tmp_path}"
    assert "set LORAJOB_CACHE to another folder" in raised.value.hint
