"""Forwards what the training processes print to the container's log, with the rank in front: `[rank 3] …`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.plain_files import NotPlainError, open_plain

_EVERY_SECONDS = 0.5
_MOST_BYTES = 1 << 20
"""Read of one log at a time: a process that prints without end must not fill the supervisor's memory."""


class LogForwarder:
    """Follows the logs of every attempt below a folder while it is entered."""

    def __init__(self, logs: Path, write: Callable[[str], None]) -> None:
        """`write` gets whole lines without their ends."""
        self._logs = logs
        self._write = write
        self._offsets: dict[Path, int] = {}
        self._refused: set[Path] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> LogForwarder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends after what is in the logs now has been passed on."""
        self._ending.set()
        self._thread.join(_EVERY_SECONDS * 10)

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_SECONDS):
            self.forward()
        while self.forward(is_last=True):
            pass

    def forward(self, *, is_last: bool = False) -> bool:
        """Whether there was anything. `is_last`: a line without an end will get none."""
        is_any = False
        for path in sorted(self._logs.glob(layout.RANK_LOG_PATTERN)):
            if (rank := layout.rank_of_log(path.name)) is not None:
                for line in self._new_lines(path, is_last=is_last):
                    is_any = True
                    self._write(f"[rank {rank}] {line}")
        return is_any

    def _new_lines(self, path: Path, *, is_last: bool) -> list[str]:
        offset = self._offsets.get(path, 0)
        try:
            with open_plain(path, below=self._logs.parent) as file:
                file.seek(offset)
                data = file.read(_MOST_BYTES)
        except NotPlainError as error:
            if path not in self._refused:
                self._write(error.message)
            self._refused.add(path)
            return []
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1] or (data if is_last or len(data) == _MOST_BYTES else b"")
        self._offsets[path] = offset + len(whole)
        # of a progress bar that is drawn over itself the last state is enough
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in whole.decode(errors="replace").split("\n"))
        return [line for line in lines if line.strip()]
