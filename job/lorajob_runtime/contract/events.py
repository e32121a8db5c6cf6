"""The event log: the one seam between training and the world.

Rank 0 appends one JSON object a line to `events.jsonl`; the supervisor follows the file and hands each event to its
sinks. Steps are explicit numbers, and a resumed run cuts the log back to its checkpoint, so no step is there twice.

    {"event": "phase", "time": …, "name": "train"}
    {"event": "step", "time": …, "step": 1, "epoch": 0.004, "loss": …, "grad_norm": …, "learning_rate": …, "tokens": …,
     "target_tokens": …, "tokens_per_second": …, "memory_bytes": …, "total_steps": …}
    {"event": "evaluation", "time": …, "step": …, "loss": …, "perplexity": …, "target_tokens": …}
    {"event": "sample", "time": …, "step": …, "index": …, "prompt": …, "output": …, "reference": …,
     "thought": …}      the last only where the model thought first
    {"event": "checkpoint", "time": …, "step": …, "path": "checkpoints/step-000100"}      later steps may come before it
    {"event": "report", "time": …, "name": "looked", "step": …}      all of the evaluation and samples are made
    {"event": "report", "time": …, "name": "targets", …}      what was decided or counted, once a start
    {"event": "end", "time": …, "exit_code": 0, "class": "succeeded", "message": …}
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lorajob_runtime.contract.plain_files import NotPlainError, open_plain

Event = dict[str, Any]


class EventLog:
    """Appends events. Each line is flushed at once; `sync` makes sure that the lines so far survive a power cut.

    Threads may share it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, event: str, **values: Any) -> None:
        """Adds one event with the present time (Unix seconds). Raises ValueError for NaN or infinity."""
        line = {"event": event, "time": round(self._clock(), 3)} | values
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            self._file.write(text)
            self._file.flush()

    def sync(self) -> None:
        """Waits until what was appended is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tail:
    """Reads a log that is still being written, from where it stopped the last time. A torn last line waits.

    What is not a regular file has no events; who uploads it says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """The whole events that came since the last call; none while the file does not exist."""
        try:
            with open_plain(self._path) as file:
                file.seek(self._offset)
                data = file.read()
        except (FileNotFoundError, NotPlainError):
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() if (event := parse(line)) is not None]


def read(path: Path) -> Iterator[Event]:
    """The events in a log; a torn or foreign line is passed over."""
    yield from Tail(path).read()


def was_evaluated(path: Path, step: int) -> bool:
    """Whether the evaluation and the samples after `step` were made, all of them."""
    return any(event.get("name") == "looked" and event.get("step") == step for event in read(path))


def parse(line: bytes) -> Event | None:
    """The event in one line of a log; None for a torn or foreign line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
