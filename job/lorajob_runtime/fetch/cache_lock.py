"""Lets one process at a time write an entry of the cache, on all nodes that share its file system.

The lock is a file made exclusively (which NFS does atomically, unlike flock on many mounts) whose holder touches it
every few seconds. A waiting process compares the file only with what it saw before, by its own clock, since the clocks
of two nodes differ. A file that no one touched for `stale_seconds`, or whose holder is a process of this machine that
has ended, is moved away and the lock is made again. Content hashes guard what the lock protects, so that the moment in
which two could both take over costs at worst a second download.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.fetch import cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a lock. `space` tells machines and containers apart whose process ids mean different things."""

    token: str
    host: str
    space: str
    pid: int
    started: str

    @property
    def has_ended(self) -> bool:
        """Whether it was a process of this very machine that has ended."""
        return self.space == _process_namespace() and _start_time(self.pid) != self.started


class WriterLock:
    """Held inside a `with` block. Waits for another holder; `on_wait` is told once who it is."""

    def __init__(
        self,
        path: Path,
        *,
        on_wait: Callable[[Holder], None] = lambda _: None,
        heartbeat_seconds: float = 5,
        stale_seconds: float = 60,
        poll_seconds: float = 0.5,
    ) -> None:
        self._path = path
        self._on_wait = on_wait
        self._heartbeat_seconds = heartbeat_seconds
        self._stale_seconds = stale_seconds
        self._poll_seconds = poll_seconds
        pid = os.getpid()
        self._me = Holder(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            space=_process_namespace(),
            pid=pid,
            started=_start_time(pid),
        )
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._keep_alive, name="model-lock", daemon=True)

    def __enter__(self) -> WriterLock:
        """Raises StorageError when the lock's folder cannot be written."""
        seen: tuple[str, int] | None = None
        seen_at = time.monotonic()
        told = False
        while not self._acquire():
            holder, touched = _read(self._path)
            if holder is None:
                continue  # released since, or not yet written
            if not told:
                self._on_wait(holder)
                told = True
            if (holder.token, touched) != seen:
                seen, seen_at = (holder.token, touched), time.monotonic()
            if holder.has_ended or time.monotonic() - seen_at > self._stale_seconds:
                self._remove_stale(holder)
                continue
            time.sleep(self._poll_seconds)
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._heartbeat.join()
        if self._is_mine():
            self._path.unlink(missing_ok=True)

    def check_held(self) -> None:
        """Raises StorageError when another process has taken the lock over: this one was taken for dead."""
        if not self._is_mine():
            raise StorageError(f"{self._path} was taken over by another process while this one was not running")

    def _acquire(self) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._acquire_by_link()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(
            f"the model cache cannot be written: {error.strerror}: {self._path.parent}",
            hint=cache.unwritable_hint(),
        )

    def _acquire_by_link(self) -> bool:
        """Makes the lock with its content in one step: a full file under another name, linked to the lock's."""
        mine = self._path.with_name(f"{self._path.name}.{self._me.token}")
        mine.write_text(json.dumps(asdict(self._me)), encoding="utf-8")
        try:
            os.link(mine, self._path)
        except FileExistsError:
            return False
        except OSError:
            return self._acquire_without_links()
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _acquire_without_links(self) -> bool:
        """The same for file systems that have no hard links."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                json.dump(asdict(self._me), file)
        except FileExistsError:
            return False
        return True

    def _remove_stale(self, dead: Holder) -> None:
        """Removes a dead holder's lock. One that was taken over by a third in the meantime is put back."""
        aside = self._path.with_name(f"{self._path.name}.{self._me.token}.dead")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unwritable(error) from error
        moved, _ = _read(aside)
        if moved is not None and moved.token != dead.token and not self._path.exists():
            aside.rename(self._path)
        aside.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        while not self._released.wait(self._heartbeat_seconds):
            if not self._is_mine():
                return
            try:
                os.utime(self._path)
            except OSError:
                continue  # the next beat tries again; `check_held` tells when the lock is lost

    def _is_mine(self) -> bool:
        holder, _ = _read(self._path)
        return holder is not None and holder.token == self._me.token


def _read(path: Path) -> tuple[Holder | None, int]:
    """Who holds the lock, and when it was last touched (nanoseconds of the file system's clock)."""
    try:
        touched = path.stat().st_mtime_ns
        return Holder(**json.loads(path.read_text(encoding="utf-8"))), touched
    except FileNotFoundError:
        return None, 0
    except (ValueError, TypeError):
        # a torn file of a holder that died while writing it: it has no one's token and grows stale like any other
        return Holder(token="", host="unknown", space="", pid=0, started=""), touched


def _process_namespace() -> str:
    """The machine since its last boot, and the process id namespace in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start_time(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty when there is none. Tells a reused id from its owner."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
