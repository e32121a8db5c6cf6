"""A sink is one module and one line in the registry: a run then reports to it, and storage has what it keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.report import registry
from lorajob_runtime.report.sink import Sink, SinkContext, SinkType
from lorajob_runtime.system import environment

MODULE = """
import json

from lorajob_runtime.report.sink import SinkType


class Ledger:
    name = "ledger"

    def __init__(self, context):
        self._key = context.variables["LEDGER_API_KEY"]
        self._folder = context.folder.report("ledger")
        self._folder.mkdir(exist_ok=True)
        self._file = (self._folder / "events.jsonl").open("w")
        context.notify("the ledger is open")

    def handle(self, event):
        print(json.dumps(event), file=self._file, flush=True)

    def close(self, limit_seconds):
        (self._folder / "closed").write_text(f"with {self._key}")


LEDGER = SinkType(name="ledger", open=Ledger, folder="ledger", variables=("LEDGER_",))
"""


@pytest.fixture
def ledger(tmp_path: Path, variables: dict[str, str]) -> dict[str, str]:
    """The environment of a run with a sink whose module lies outside the package."""
    module = tmp_path / "elsewhere/ledger_sink.py"
    module.parent.mkdir()
    module.write_text(MODULE)
    return {
        "PYTHONPATH": os.pathsep.join([variables["PYTHONPATH"], str(module.parent)]),
        "DRIVE_SINK": "ledger_sink:LEDGER",
        "LEDGER_API_KEY": "k-1\n",
        "OTHER_API_KEY": "k-2",
    }


def events_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _opened(folder: Path, *, warn: Callable[[str], Any]) -> list[Sink]:
    return registry.open(
        parse({"name": "n"}),
        RunFolder(folder),
        environment.read(),
        output="text",
        shows_here=False,
        warn=warn,
        notify=pytest.fail,
    )


def test_every_event_of_a_run_reaches_it_and_storage_has_its_folder(
    start: Callable[..., Any], tmp_path: Path, ledger: dict[str, str]
) -> None:
    run = start(str(tmp_path / "runs"), variables=ledger)

    assert run.wait() == 0
    stored = tmp_path / "runs/n/ledger"
    assert events_of(stored / "events.jsonl") == run.events()
    assert run.events()[-1]["event"] == "end"
    assert run.steps() == [1, 2, 3, 4]
    assert "the ledger is open" in run.remarks("notice")
    assert (stored / "closed").read_text() == "with k-1"


def test_one_that_cannot_be_opened_is_warned_of_and_the_run_succeeds(
    start: Callable[..., Any], tmp_path: Path, ledger: dict[str, str]
) -> None:
    del ledger["LEDGER_API_KEY"]

    run = start(str(tmp_path / "runs"), variables=ledger)

    assert run.wait() == 0
    assert run.remarks("warning") == ["report to ledger is off: KeyError: 'LEDGER_API_KEY'"]


def test_a_sink_gets_the_variables_that_begin_as_it_says_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[SinkContext] = []

    def note(context: SinkContext) -> Sink | None:
        given.append(context)
        return None

    monkeypatch.setattr(registry, "SINKS", (SinkType(name="a", open=note, variables=("LEDGER_",)),))
    monkeypatch.setenv("LEDGER_API_KEY", "k-1")
    monkeypatch.setenv("OTHER_API_KEY", "k-2")

    opened = _opened(tmp_path, warn=pytest.fail)

    assert opened == []
    assert {name for name in given[0].variables if name.endswith("_API_KEY")} == {"LEDGER_API_KEY"}


def test_the_warning_of_one_that_cannot_be_opened_has_all_lines_of_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(context: SinkContext) -> Sink | None:
        raise ValueError("2 faults in the settings\nhost: not an address\nkey: too short")

    warnings: list[str] = []
    monkeypatch.setattr(registry, "SINKS", (SinkType(name="a", open=fail),))

    assert _opened(tmp_path, warn=warnings.append) == []

    assert warnings == ["report to a is off: ValueError: 2 faults in the settings host: not an address key: too short"]


def test_names_and_folders_of_sinks_are_their_own() -> None:
    names = [each.name for each in registry.SINKS]
    of_a_run = {value for value in vars(layout).values() if isinstance(value, str)}

    assert len(set(names)) == len(names)
    assert len(set(registry.folders())) == len(registry.folders())
    assert not of_a_run & set(registry.folders())


@pytest.mark.parametrize(
    ("output", "variables", "opened"),
    [
        ("text", {}, ["console"]),
        ("json", {}, ["json"]),
        ("job", {"LORAJOB_JOB": "n"}, ["console", "the progress annotation"]),
    ],
)
def test_what_reads_the_output_of_a_start_decides_how_it_is_shown(
    tmp_path: Path, output: Any, variables: dict[str, str], opened: list[str]
) -> None:
    settings = environment.read({"HOME": str(tmp_path), **variables})

    shown = registry.open(
        parse({"name": "n"}),
        RunFolder(tmp_path),
        settings,
        output=output,
        shows_here=True,
        warn=pytest.fail,
        notify=pytest.fail,
    )

    assert [each.name for each in shown] == opened
