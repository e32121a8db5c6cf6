"""The caller's side of the client process: starts it, reads its answers, and ends it whatever happens."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lorajob_runtime.exits import ERRORS, HubError


@contextmanager
def answers(
    request: dict[str, Any], *, tick: Callable[[], None] = lambda: None, tick_seconds: float = 1
) -> Iterator[Iterator[dict[str, Any]]]:
    """The answers to one request, one at a time. `tick` is called while waiting; what it raises ends the process.

    Raises the error that the client reports, or HubError when it dies without a word.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        process = subprocess.Popen(
            [sys.executable, "-m", "lorajob_runtime.fetch.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=False,
            bufsize=0,
            # a Ctrl-C at the terminal is for the caller, which then ends this
            start_new_session=True,
        )
        try:
            yield _read(process, request, tick, tick_seconds, noise)
        finally:
            process.kill()
            process.communicate()


def _read(
    process: subprocess.Popen[bytes],
    request: dict[str, Any],
    tick: Callable[[], None],
    tick_seconds: float,
    noise: Any,
) -> Iterator[dict[str, Any]]:
    for line in _lines(process, request, tick, tick_seconds):
        answer = json.loads(line)
        if "error" in answer:
            raise ERRORS.get(answer["error"], HubError)(answer["message"], hint=answer["hint"])
        yield answer
    if process.wait() != 0:
        noise.seek(0)
        last = (noise.read().strip().splitlines() or ["it said nothing"])[-1]
        raise HubError(f"the download process ended with {process.returncode}: {last}")


def _lines(
    process: subprocess.Popen[bytes], request: dict[str, Any], tick: Callable[[], None], tick_seconds: float
) -> Iterator[bytes]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    process.stdin.write(json.dumps(request).encode() + b"\n")
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
