"""Events as JSON lines, for programs that run a run."""

from __future__ import annotations

import json
from typing import IO

from lorajob_runtime.contract.events import Event


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
