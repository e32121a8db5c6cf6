"""Starting, finding and ending processes that outlive the one that started them, and never any other process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class ClusterError(Exception):
    """What keeps the cluster from running, for a person."""


def say(text: str) -> None:
    """A line of progress."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, input: str | None = None, log: Path | None = None, **options: object) -> str:
    """What a command printed. Raises ClusterError with the end of what it said, which `log` keeps whole."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=input, text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        end = (done.stderr or done.stdout).strip()[-2000:]
        raise ClusterError(f"{' '.join(words[:4])} …: exit {done.returncode}: {end}")
    return str(done.stdout)


@contextlib.contextmanager
def progress(what: str, detail: Callable[[], str] = lambda: "", *, every_seconds: float = 30) -> Iterator[None]:
    """Says what is done, and at times how long it has taken so far, with `detail`; in the end how long it took."""
    begin, ended = time.monotonic(), threading.Event()

    def beat() -> None:
        while not ended.wait(every_seconds):
            say(f"{what}: {time.monotonic() - begin:.0f} s so far{detail()}")

    say(what)
    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
    say(f"{what}: done in {time.monotonic() - begin:.0f} s{detail()}")


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """While this is held nobody else brings this cluster up or down."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Processes:
    """The processes of one cluster, by the record that each left in a folder."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def start(self, name: str, *command: str | Path, folder: Path) -> None:
        """Starts a program in a session of its own, with its output in a log file."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._records / name).write_text(f"{process.pid} {started_at(process.pid)}")

    def names(self) -> list[str]:
        """Every process that was started and not stopped, running or not."""
        return sorted(path.name for path in self._records.iterdir()) if self._records.is_dir() else []

    def is_alive(self, name: str) -> bool:
        """Whether the recorded process runs: its number may have gone to another one since."""
        return self._pid(name) is not None

    def stop(self, name: str, *, seconds: float = 5) -> None:
        """Ends the recorded process: politely, then by force."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if (pid := self._pid(name)) is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
            _wait(lambda: not self.is_alive(name), seconds)
        (self._records / name).unlink(missing_ok=True)

    def wait(self, name: str, ready: Callable[[], bool], *, seconds: float = 60) -> None:
        """Waits until something is ready that the process `name` provides. Raises ClusterError if it will not be."""
        _wait(lambda: ready() or not self.is_alive(name), seconds)
        if not ready():
            log = self._logs / f"{name}.log"
            lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            raise ClusterError(f"{name} did not come up in {seconds:g} s; the end of {log}:\n" + "\n".join(lines))

    def _pid(self, name: str) -> int | None:
        try:
            pid, started = (self._records / name).read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if started_at(int(pid)) == started else None


def started_at(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None for one that is gone or has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the program's name comes before, in brackets, and may hold anything
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done
