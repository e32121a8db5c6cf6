"""What every trainer of others leaves behind: seconds and loss of each optimizer step, and the most memory it took.

Runs in environments that have no lorajob: it needs torch and transformers alone.
"""

from __future__ import annotations

import json
import resource
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

VERSIONS = ("torch", "transformers", "peft", "accelerate")


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds and loss of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append({"seconds": _now() - self._began})

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs is not None and "loss" in logs:
            self.steps[-1]["loss"] = float(logs["loss"])


def _now() -> float:
    """The clock, once a GPU has done what it was given: the optimizer step is only queued when a step ends."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def write(path: Path, clock: Clock, *packages: str) -> None:
    """Writes {"steps": [{"seconds", "loss"}], "memory_bytes", "versions": {package: version}}."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    versions = {name: metadata.version(name) for name in (*packages, *VERSIONS)}
    path.write_text(json.dumps({"steps": clock.steps, "memory_bytes": peak, "versions": versions}))


def examples(path: Path) -> list[dict[str, list[int]]]:
    """The rows that train.py wrote for a trainer: JSON Lines of "input_ids", "labels" and, of documents, "lengths"."""
    return [json.loads(line) for line in path.read_text().splitlines()]
