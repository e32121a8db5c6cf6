"""Speaks in JSON lines with a module of this package that runs in a process of its own; both ends are here.

The parent starts a `Child` and sends messages; for one request `answers` does it all. The child's program makes a
`Parent` first. It ends at once when its input closes, which the kernel does however the parent ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.system import key_isolation

KEYS = "keys"
"""Field of a message with variables that only this program is to have: an environment stands in /proc for all."""

Message = dict[str, Any]
Died = Callable[[int, str], LorajobError]
"""From the exit status (negative: a signal) and the last line that was printed to the error to raise."""


@contextlib.contextmanager
def answers(
    module: str,
    request: Message,
    *,
    died: Died,
    variables: Mapping[str, str],
    keys: Mapping[str, str] | None = None,
    hidden: Iterable[Path] = (),
    log: Path | None = None,
    tick: Callable[[], None] = lambda: None,
    tick_seconds: float = 1,
) -> Iterator[Iterator[Message]]:
    """The answers to one request, one at a time. `tick` is called while waiting; what it raises ends the process.

    `variables`, `hidden` and `log` are those of `Child`; `keys` go into the request. Raises the error that the program
    reports (`Parent.fail`), or what `died` makes of a death without a word.
    """
    child = Child(module, variables=variables, hidden=hidden, log=log)
    try:
        child.send(request if keys is None else request | {KEYS: dict(keys)})
        yield _read(child, died, tick, tick_seconds)
    finally:
        child.kill()


def _read(child: Child, died: Died, tick: Callable[[], None], tick_seconds: float) -> Iterator[Message]:
    while not child.is_gone:
        answer = child.answer(time.monotonic() + tick_seconds)
        if answer is not None:
            if "error" in answer:
                raise errors.error_named(answer["error"], answer["message"], hint=answer["hint"])
            yield answer
        if not child.is_gone:
            tick()
    if (status := child.status()) != 0:
        raise died(status, child.last_line() or "it said nothing")


class Child:
    """The parent's end: a module of this package in a process of its own."""

    def __init__(
        self,
        module: str,
        *,
        variables: Mapping[str, str],
        hidden: Iterable[Path] = (),
        folder: Path | None = None,
        log: Path | None = None,
    ) -> None:
        """`variables`: its environment. `hidden`: files that it cannot open. `folder`: its working directory.

        `log`: what it and its libraries print is appended here.
        """
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        self._printed: IO[bytes] = tempfile.TemporaryFile() if log is None else log.open("a+b")  # noqa: SIM115 `kill` does
        self._begin = self._printed.seek(0, os.SEEK_END)
        self._process = subprocess.Popen(
            # -P: a file in the working directory cannot stand in for a package
            key_isolation.confined([sys.executable, "-P", "-m", module], hidden),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            cwd=folder,
            env=variables,
            # a Ctrl-C at the terminal is for the parent, which then ends this
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

    def status(self) -> int:
        """Waits for the end, and returns the exit status; negative: the signal that ended it."""
        return self._process.wait()

    def last_line(self) -> str:
        """The last line that it or a library printed; empty for none."""
        self._printed.seek(self._begin)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def kill(self) -> None:
        """Ends it now, whatever it does."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._printed.close()

    def _listen(self, stream: IO[str]) -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            for line in stream:
                with contextlib.suppress(json.JSONDecodeError):
                    self._answers.put(json.loads(line))
        self._answers.put(None)


class Parent:
    """The child's end: what the parent asks, and what is answered. There is one in a process, made before anything."""

    def __init__(self) -> None:
        # what libraries print must not stand among the answers
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def message(self, timeout_seconds: float | None = None) -> Message | None:
        """The next message; None when there is none in that time. Its keys become variables of this process."""
        try:
            message = self._messages.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if KEYS in message:
            key_isolation.take(message.pop(KEYS))
        return message

    def request(self) -> Message:
        """The next message, however long it takes."""
        message = self.message()
        assert message is not None  # noqa: S101 without a limit there is one, or the process ends
        return message

    def answer(self, message: Message) -> None:
        """Sends a message to the parent."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def fail(self, error: LorajobError) -> None:
        """Has the parent raise an error."""
        self.answer({"error": error.failure.name, "message": error.message, "hint": error.hint})

    def leave(self, status: int = 0) -> NoReturn:
        """Ends this process at once: libraries leave threads behind that would keep it."""
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._messages.put(json.loads(line))
        self.leave(1)
