"""Runs a module of this package in a process of its own for one request: a JSON line in, JSON lines out.

The program answers {"error": class, "message": …, "hint": …} when it fails. It must end itself when its caller is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.system import key_isolation

KEYS = "keys"
"""Field of a request with the variables that only this program is to have."""

Died = Callable[[int, str], LorajobError]
"""From the exit status (negative: a signal) and the last line that was printed to the error to raise."""


@contextlib.contextmanager
def answers(
    module: str,
    request: dict[str, Any],
    *,
    died: Died,
    variables: Mapping[str, str],
    keys: Mapping[str, str] | None = None,
    hidden: Iterable[Path] = (),
    log: Path | None = None,
    tick: Callable[[], None] = lambda: None,
    tick_seconds: float = 1,
) -> Iterator[Iterator[dict[str, Any]]]:
    """The answers to one request, one at a time. `tick` is called while waiting; what it raises ends the process.

    `variables` is the program's environment. `keys` go into the request, since everyone's environment stands in /proc;
    the program has to take them (`private.take`). The files `hidden` it cannot open. What it and its libraries print is
    appended to `log`. Raises the error that the program reports, or what `died` makes of a death without a word.
    """
    with tempfile.TemporaryFile() if log is None else log.open("a+b") as noise:
        begin = noise.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            # -P: a file in the working directory cannot stand in for a package
            key_isolation.confined([sys.executable, "-P", "-m", module], hidden),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=variables,
            bufsize=0,
            # a Ctrl-C at the terminal is for the caller, which then ends this
            start_new_session=True,
        )
        try:
            asked = request if keys is None else request | {KEYS: dict(keys)}
            yield _read(process, asked, died, tick, tick_seconds, noise, begin)
        finally:
            process.kill()
            process.communicate()


def _read(
    process: subprocess.Popen[bytes],
    request: dict[str, Any],
    died: Died,
    tick: Callable[[], None],
    tick_seconds: float,
    noise: IO[bytes],
    begin: int,
) -> Iterator[dict[str, Any]]:
    for line in _lines(process, request, tick, tick_seconds):
        answer = json.loads(line)
        if "error" in answer:
            raise errors.error_named(answer["error"], answer["message"], hint=answer["hint"])
        yield answer
    if (status := process.wait()) != 0:
        noise.seek(begin)
        lines = noise.read().decode(errors="replace").strip().splitlines()
        raise died(status, lines[-1] if lines else "it said nothing")


def _lines(
    process: subprocess.Popen[bytes], request: dict[str, Any], tick: Callable[[], None], tick_seconds: float
) -> Iterator[bytes]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    # one that has died already is told by its end
    with contextlib.suppress(BrokenPipeError):
        _write(process.stdin, json.dumps(request).encode() + b"\n")
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(tick_seconds):
                tick()
                continue
            chunk = process.stdout.read(1 << 16)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            tick()


def _write(pipe: IO[bytes], data: bytes) -> None:
    """All of it: a pipe without a buffer may take a part."""
    while data:
        data = data[pipe.write(data) :]
