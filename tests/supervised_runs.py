"""Runs of the real supervisor, in a process of its own, with a training process that does not train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract.layout import RunFolder

PROGRAMS = Path(__file__).parent / "job/run/programs"


class Run:
    """One start of the supervisor."""

    def __init__(
        self,
        uri: str,
        *,
        variables: dict[str, str],
        output: Path,
        orders: dict[str, Any],
        spec: dict[str, Any],
        limits: dict[str, Any],
        processes: int,
    ) -> None:
        whole = {"name": "n", "storage": {"uri": uri}, "report": {"swanlab": {"mode": "disabled"}}} | spec
        pace = {"look": 0.05, "events": 0.1, "retry": 0.1}
        quick = {"poll": 0.05, "storage_at_start": 0.5, "storage_at_end": 10, "sinks_at_end": 5, "pace": pace} | limits
        self._output = output
        with output.open("w") as stdout, output.with_suffix(".err").open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAMS / "drive.py", json.dumps(whole), json.dumps(quick), str(processes)],
                env=variables | {"TORCH_FAKE_WORKER": json.dumps({"total": 4, "save": 2} | orders)},
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def wait(self, seconds: float = 120) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def events(self) -> list[dict[str, Any]]:
        """What the reports have been given so far."""
        return [json.loads(line) for line in self._output.read_text().splitlines() if line.endswith("}")]

    def steps(self) -> list[int]:
        return [event["step"] for event in self.events() if event["event"] == "step"]

    def end(self) -> dict[str, Any]:
        """The last event, which says how it ended."""
        last = self.events()[-1]
        assert last["event"] == "end", last
        return last

    def remarks(self, name: str) -> list[str]:
        """The notices or warnings."""
        return [event["message"] for event in self.events() if event["event"] == "report" and event["name"] == name]

    def stderr(self) -> str:
        return self._output.with_suffix(".err").read_text()


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """The environment of a run: folders of the test's own, no S3."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(PROGRAMS),
        "LORAJOB_WORK": str(tmp_path / "work"),
        "LORAJOB_CACHE": str(tmp_path / "cache"),
        "LORAJOB_DEVICE": "cpu",
    }


@pytest.fixture
def start(tmp_path: Path, variables: dict[str, str]) -> Iterator[Callable[..., Run]]:
    """Starts a run: `start(uri, orders={…}, spec={…}, limits={…}, processes=1, variables={…})`."""
    runs: list[Run] = []

    def begin(uri: str, **options: Any) -> Run:
        given = variables | options.pop("variables", {})
        settings: dict[str, Any] = {"orders": {}, "spec": {}, "limits": {}, "processes": 1} | options
        runs.append(Run(uri, variables=given, output=tmp_path / f"run-{len(runs)}.jsonl", **settings))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The work folder of a run whose storage is `tmp_path / "runs"`."""
    return RunFolder(tmp_path / "runs/.work/n")
