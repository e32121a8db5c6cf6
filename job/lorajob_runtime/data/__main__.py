"""Prepares or checks a dataset in a process of its own: `python -m lorajob_runtime.data`. One request, one answer.

    {"spec": {…}, "model": folder, "folder": folder}                  -> {"report": {…}}
    {"spec": {…}, "model": folder, "shown_rows": 3, "colour": false}  -> {"report": {…}, "text": what a person reads}

A model repository's tokenizer may be code, and every tokenizer and file reader is a library that keeps hundreds of
megabytes: here both are gone when the dataset is written, and neither has seen a key.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import UNEXPECTED
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import classify
from lorajob_runtime.system import processes
from lorajob_runtime.system.child_process import Parent


def main() -> None:
    """Answers one request."""
    # by the kernel: a tokenizer's own code may hold the interpreter, and then nothing here sees that stdin ended
    processes.die_with_parent()
    processes.be_first_out_of_memory()
    parent = Parent()
    request: dict[str, Any] = parent.request()
    try:
        parent.answer(_prepare(request) if "folder" in request else _check(request))
    except Exception as caught:  # noqa: BLE001 this is where it gets one of our names
        error = classify(caught, disk=str(request.get("folder", request["model"])))
        if error.failure is UNEXPECTED:
            traceback.print_exc()
        parent.fail(error)
    parent.leave()


def _prepare(request: dict[str, Any]) -> dict[str, Any]:
    spec = _spec(request)
    from lorajob_runtime.data.prepare import prepare

    report = prepare(spec, model_path=Path(request["model"]), folder=Path(request["folder"]))
    return {"report": report.to_dict()}


def _check(request: dict[str, Any]) -> dict[str, Any]:
    spec = _spec(request)
    from lorajob_runtime.data.check import check, check_text, to_dict

    report = check(spec, model_path=Path(request["model"]), shown_rows=request["shown_rows"])
    return {"report": to_dict(report), "text": check_text(report, request["colour"])}


def _spec(request: dict[str, Any]) -> RunSpec:
    """The spec of a request. Torch is left out where no code of the model's repository may want it."""
    spec = specs.parse(request["spec"])
    if not spec.model.trust_remote_code:
        _leave_out_torch()
    return spec


class _WithoutTorch(PathFinder):
    """Finds modules as Python does, but no torch: here it is as if it were not installed."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


def _leave_out_torch() -> None:
    """Keeps torch, which transformers imports wherever it finds it, out of this process.

    A tokenizer needs none of it, and it takes most of the time and memory of a start. A repository's code may need it.
    `import`, `sys.modules` and `find_spec` all answer as in an environment without torch.
    """
    sys.meta_path[sys.meta_path.index(PathFinder)] = _WithoutTorch
    # that models are not available then
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"


if __name__ == "__main__":
    main()
