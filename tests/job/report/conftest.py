"""A SwanLab server, sinks that report to it, and the events of a small run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.swanlab_server import SwanLabServer, serving
from lorajob_runtime.contract import spec
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.report.swanlab.sink import SWANLAB, Limits, SwanLab
from lorajob_runtime.system import environment
from supervised_runs import start, variables

__all__ = ["SmallRun", "start", "variables"]

LOGGING_STEPS = 2


@pytest.fixture
def swanlab_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SwanLabServer]:
    """A SwanLab server that this process's environment points at, with a key it accepts."""
    for name in [name for name in os.environ if name.startswith("SWANLAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with serving() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        yield server


@dataclass
class Reported:
    """One run's folder, the sinks of its starts, and what they had to say."""

    folder: RunFolder
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def sink(self, *, mode: str = "auto", limits: Limits | None = None) -> SwanLab:
        """A new start's sink."""
        run = {
            "name": "poems",
            "train": {"loggingSteps": LOGGING_STEPS},
            "report": {"swanlab": {"mode": mode, "project": "verse", "experiment": "first-try"}},
        }
        return SwanLab(
            spec.parse(run),
            folder=self.folder,
            variables=environment.for_report(SWANLAB.variables),
            is_in_pod=environment.read().pod is not None,
            warn=self.warnings.append,
            notify=self.notices.append,
            limits=limits,
        )

    def sync(self) -> None:
        """Does what the one warning says, to the letter."""
        (warning,) = self.warnings
        command = shlex.split(warning[warning.index("swanlab sync") :])
        command[0] = str(Path(sys.executable).with_name("swanlab"))
        subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def reported(tmp_path: Path) -> Reported:
    """A run whose sinks write to a folder of the test's own."""
    return Reported(RunFolder(tmp_path / "run"))


def step(number: int, total: int = 100) -> Event:
    """An optimizer step whose loss is 10 less its number."""
    return {
        "event": "step",
        "time": time.time(),
        "step": number,
        "total_steps": total,
        "epoch": number / 10,
        "loss": 10.0 - number,
        "grad_norm": 0.5,
        "learning_rate": 1e-4,
        "tokens": 100,
        "tokens_per_second": 50.0,
        "memory_bytes": 3 * 2**30,
    }


def sample(number: int, index: int = 0) -> Event:
    """An answer to the one sample prompt."""
    return {
        "event": "sample",
        "step": number,
        "index": index,
        "prompt": f"question {index}",
        "output": f"answer {index} at {number}",
        "reference": "as it is written",
    }


def end(code: int = 0, **values: Any) -> Event:
    """How a run ended."""
    return {"event": "end", "time": time.time(), "exit_code": code, **values}


class SmallRun:
    """The events of a run, as a log holds them."""

    step = staticmethod(step)
    sample = staticmethod(sample)
    end = staticmethod(end)

    def steps(self, first: int, last: int) -> list[Event]:
        """Steps in order, both ends included."""
        return [step(number) for number in range(first, last + 1)]


@pytest.fixture
def small_run() -> SmallRun:
    """Makes events."""
    return SmallRun()
