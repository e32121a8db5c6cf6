"""The caller's side of the process that prepares a dataset: it gets the files' places, and no key to anything."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import UNEXPECTED, LorajobError, OutOfMemoryError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system import child_process, environment, processes

_MODULE = "lorajob_runtime.data"


def prepare(spec: RunSpec, *, model_path: Path, folder: Path, log: Path) -> dict[str, Any]:
    """Has `data.prepare.prepare` do its work; returns its report as JSON values.

    What the libraries print is appended to `log`, and so is the trace of an error that nobody foresaw. Raises
    DataError, ModelError, ConfigError, StorageError, OutOfMemoryError.
    """
    request = {"spec": specs.to_dict(spec), "model": str(model_path), "folder": str(folder)}
    kills_before = processes.memory_kills()

    def died(status: int, last_line: str) -> LorajobError:
        if status == -signal.SIGKILL and processes.memory_kills() > kills_before:
            return OutOfMemoryError(
                "preparing the data was ended: the memory of this machine or container was used up",
                hint="choose fewer rows with data.rows, or ask for more memory with resources.memory",
            )
        return LorajobError(f"the process that prepares the data ended with {status}: {last_line}")

    variables, hidden = environment.for_training(), environment.hidden_files()
    try:
        with child_process.answers(_MODULE, request, died=died, variables=variables, hidden=hidden, log=log) as given:
            (answer,) = given
    except LorajobError as error:
        if error.failure is UNEXPECTED:
            raise LorajobError(f"{error.message}; more in {log}") from error
        raise
    report: dict[str, Any] = answer["report"]
    return report
