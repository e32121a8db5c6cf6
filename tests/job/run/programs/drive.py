"""Runs the real supervisor with light stand-ins for what imports torch: the model, the dataset, the publishing.

Arguments: a spec as JSON, limits as JSON, processes. Prints the run's events, and ends with its exit code.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.layout import ADAPTER_WEIGHTS, RunFolder
from lorajob_runtime.report import registry
from lorajob_runtime.run import supervisor
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.storage import ownership
from lorajob_runtime.storage.uploader import UploadIntervals
from lorajob_runtime.system import environment


def fetch(model: Any, *, environment: Any, notify: Any, inspect: Any) -> Any:
    if model.name == "endless":
        time.sleep(60)
    found = cached(model) or [types.SimpleNamespace(path=Path("/nowhere"), source="folder", revision="1")]
    return found[0]


def cached(model: Any, *, environment: Any = None) -> Any:
    """A folder is a model, whatever is in it; a second one beside it is the same from elsewhere."""
    paths = (Path(model.name), Path(f"{model.name}-elsewhere"))
    return [types.SimpleNamespace(path=path, source=str(path), revision="1") for path in paths if path.is_dir()]


def prepare(spec: Any, *, model_path: Path, folder: Path, log: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if spec.data.format == "text":
        raise KeyError("a fault of ours")
    report = {"source": spec.data.source}
    if spec.data.source is not None and (path := Path(spec.data.source)).suffix == ".json":
        content = path.read_bytes()
        # the template has a part in the tokens; how the rows are written has none
        template = model_path / "chat_template.jinja"
        tokens = json.dumps(json.loads(content)) + (template.read_text() if template.exists() else "")
        report["fingerprint"] = hashlib.sha256(tokens.encode()).hexdigest()
        report["source_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "report.json").write_text(json.dumps(report))
    return report


def publish(folder: RunFolder, *, spec: Any, model: Any) -> Path:
    newest = sorted(folder.checkpoints.iterdir())[-1]
    folder.adapter.mkdir(exist_ok=True)
    (folder.adapter / ADAPTER_WEIGHTS).write_bytes((newest / ADAPTER_WEIGHTS).read_bytes())
    (folder.adapter / "README.md").write_text(folder.data_report.read_text())
    return folder.adapter


def module(name: str, **members: Any) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


if __name__ == "__main__":
    module("lorajob_runtime.fetch", fetch=fetch, cached=cached)
    module("lorajob_runtime.data.process", prepare=prepare)
    module("lorajob_runtime.publish", publish=publish)
    if (place := os.environ.get("DRIVE_SINK")) is not None:
        # a sink of a module elsewhere, and its line in the registry
        file, _, member = place.partition(":")
        registry.SINKS += (getattr(importlib.import_module(file), member),)
    values = json.loads(sys.argv[2])
    paces = {
        "pace": UploadIntervals(**values.get("pace", {})),
        "lease": ownership.LeaseIntervals(**values.get("lease", {})),
    }
    limits = Limits(**(values | paces))
    code = supervisor.run(
        specs.loads(sys.argv[1]),
        environment.read(),
        output="json",
        processes=int(sys.argv[3]),
        limits=limits,
        worker="fake_worker",
    )
    sys.stdout.flush()
    # as the container's entry point ends
    os._exit(code)
