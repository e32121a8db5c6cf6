"""The caller's side of the process that prepares or checks a dataset: it gets the files' places, and no key."""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import UNEXPECTED, LorajobError, OutOfMemoryError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system import cgroup, child_process, environment

_MODULE = "lorajob_runtime.data"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What a check found: as JSON values, and as a person reads it."""

    report: dict[str, Any]
    text: str


def prepare(spec: RunSpec, *, model_path: Path, folder: Path, log: Path) -> dict[str, Any]:
    """Has `data.prepare.prepare` do its work; returns its report as JSON values.

    What the libraries print is appended to `log`, and so is the trace of an error that nobody foresaw. Raises
    DataError, ModelError, ConfigError, StorageError, OutOfMemoryError.
    """
    request = {"spec": specs.to_dict(spec), "model": str(model_path), "folder": str(folder)}
    try:
        report: dict[str, Any] = _answer(request, task="prepares", log=log)["report"]
    except LorajobError as error:
        if error.failure is UNEXPECTED:
            raise LorajobError(f"{error.message}; more in {log}") from error
        raise
    return report


def check(spec: RunSpec, *, model_path: Path, shown_rows: int, colour: bool, log: Path | None = None) -> Checked:
    """Has `data.check.check` do its work. Raises DataError, ModelError, ConfigError, OutOfMemoryError.

    An error that nobody foresaw has the process's own trace as a note, unless that went to `log`.
    """
    request = {"spec": specs.to_dict(spec), "model": str(model_path), "shown_rows": shown_rows, "colour": colour}
    with tempfile.TemporaryDirectory() as folder:
        printed = log or Path(folder, "log")
        try:
            answer = _answer(request, task="checks", log=printed)
        except LorajobError as error:
            if error.failure is UNEXPECTED and log is None and printed.exists():
                error.add_note(printed.read_text("utf-8", "replace"))
            raise
    return Checked(report=answer["report"], text=answer["text"])


def _answer(request: dict[str, Any], *, task: str, log: Path | None) -> dict[str, Any]:
    """The data process's one answer. It has no key to anything, and cannot open files that hold one."""
    kills_before = cgroup.memory_kills()

    def died(status: int, last_line: str) -> LorajobError:
        if status == -signal.SIGKILL and cgroup.memory_kills() > kills_before:
            return OutOfMemoryError(
                f"the process that {task} the data was ended: the memory of this machine or container was used up",
                hint="choose fewer rows with data.rows, or ask for more memory with resources.memory",
            )
        return LorajobError(f"the process that {task} the data ended with {status}: {last_line}")

    variables, hidden = environment.for_training(), environment.hidden_files()
    with child_process.answers(_MODULE, request, died=died, variables=variables, hidden=hidden, log=log) as given:
        (answer,) = given
    return answer
