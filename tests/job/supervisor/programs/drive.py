"""Runs the real supervisor with light stand-ins for what imports torch: the model, the dataset, the publishing.

Arguments: a spec as JSON, limits as JSON, processes. Prints the run's events, and ends with its exit code.
"""

from __future__ import annotations

import json
import sys
import time
import types
from pathlib import Path
from typing import Any

from lorajob_runtime import environment, supervisor
from lorajob_runtime import spec as specs
from lorajob_runtime.layout import ADAPTER_WEIGHTS, RunFolder
from lorajob_runtime.report.jsonl import JsonLines
from lorajob_runtime.supervisor import Limits
from lorajob_runtime.upload import Pace


def fetch(model: Any, *, environment: Any, notify: Any, inspect: Any) -> Any:
    if model.name == "endless":
        time.sleep(60)
    return types.SimpleNamespace(path=Path("/nowhere"), source="folder", revision="1")


def prepare(spec: Any, *, model_path: Path, folder: Path, log: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if spec.data.format == "text":
        raise KeyError("a fault of ours")
    return {"source": spec.data.source}


def publish(folder: RunFolder, *, spec: Any, model: Any) -> Path:
    newest = sorted(folder.checkpoints.iterdir())[-1]
    folder.adapter.mkdir(exist_ok=True)
    (folder.adapter / ADAPTER_WEIGHTS).write_bytes((newest / ADAPTER_WEIGHTS).read_bytes())
    return folder.adapter


def module(name: str, **members: Any) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


if __name__ == "__main__":
    module("lorajob_runtime.fetch", fetch=fetch)
    module("lorajob_runtime.data.process", prepare=prepare)
    module("lorajob_runtime.publish", publish=publish)
    values = json.loads(sys.argv[2])
    limits = Limits(**(values | {"pace": Pace(**values.get("pace", {}))}))
    code = supervisor.run(
        specs.loads(sys.argv[1]),
        environment.read(),
        sinks=[JsonLines(sys.stdout)],
        processes=int(sys.argv[3]),
        limits=limits,
        worker="fake_worker",
    )
    sys.exit(code)
