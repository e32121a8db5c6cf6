"""Writes a run's events as JSON lines, for a program that started it."""

from __future__ import annotations

import json
import sys
from typing import IO

from lorajob_runtime.contract.events import Event
from lorajob_runtime.report.sink import Sink, SinkContext, SinkType


class JsonLines:
    """Writes each event as one line of JSON, flushed at once. A reader that has gone away is no fault of the run."""

    name = "json"

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._has_reader = True

    def handle(self, event: Event) -> None:
        """Writes one line. ASCII only: a line then survives any encoding of the stream."""
        if not self._has_reader:
            return
        try:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # ValueError: the stream is closed
            self._has_reader = False

    def close(self, limit_seconds: float) -> None:
        """Nothing is held back, so nothing is left to write."""


def _open(context: SinkContext) -> Sink | None:
    return JsonLines(sys.stdout) if context.output == "json" else None


JSON_LINES = SinkType(name=JsonLines.name, open=_open, shows_here=True)
