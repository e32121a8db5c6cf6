"""A program of ours in a process of its own, spoken to in JSON lines, that never outlives who started it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

Message = dict[str, Any]


class Child:
    """Runs a module of this package. It reads messages on stdin and must end itself at once when that closes."""

    def __init__(self, module: str, *, folder: Path, log: Path, variables: Mapping[str, str]) -> None:
        """`folder`: its working directory. `log`: what it and its libraries print is appended here.

        `variables`: its environment, which stands in /proc for all to read: keys go into a message.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                # -P: a file in the working directory cannot stand in for a package
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=variables,
                # a Ctrl-C at the terminal is the supervisor's to answer
                start_new_session=True,
                encoding="utf-8",
            )
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._is_gone = False
        assert self._process.stdout is not None  # noqa: S101 it is a pipe
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def send(self, message: Message) -> None:
        """Passes a message on. One that is gone takes it too: `answer` tells."""
        assert self._process.stdin is not None  # noqa: S101 it is a pipe
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed by `kill`
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def answer(self, deadline: float | None = None) -> Message | None:
        """The next answer; None when there is none yet at the deadline (monotonic; None: at once), or it is gone."""
        if self._is_gone:
            return None
        try:
            wait = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
            found = self._answers.get(block=wait > 0, timeout=wait or None)
        except queue.Empty:
            return None
        self._is_gone = found is None
        return found

    @property
    def is_gone(self) -> bool:
        """Whether it ended and all its answers were read."""
        return self._is_gone

    def kill(self) -> None:
        """Ends it now, whatever it does."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _listen(self, stream: IO[str]) -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            for line in stream:
                with contextlib.suppress(json.JSONDecodeError):
                    self._answers.put(json.loads(line))
        self._answers.put(None)
