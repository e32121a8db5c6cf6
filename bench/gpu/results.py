"""One JSON line for everything that was checked or measured, and the clock that waits for a GPU."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


def folder() -> Path:
    """Where results go: $OUT, which gpu.sh sets."""
    return Path(os.environ.get("OUT", "gpu-out"))


def say(kind: str, name: str, passed: bool, **values: Any) -> None:
    """Prints a result and appends it to the lines that gpu/table.py reads."""
    line = json.dumps({"kind": kind, "name": name, "passed": bool(passed), **values})
    print(line, flush=True)
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "gpu.jsonl").open("a") as file:
        file.write(line + "\n")


def attempt(kind: str, name: str, work: Callable[[], None]) -> None:
    """Does the work; an error of it is a result that did not pass, since what comes after it may say more."""
    try:
        work()
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        say(kind, name, False, error=f"{type(error).__name__}: {str(error)[:300]}")


def synchronize() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


def milliseconds(work: Callable[[], object], *, repeats: int = 10, warm: int = 3) -> float:
    """Mean of `repeats` calls after `warm` ones."""
    for _ in range(warm):
        work()
    synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return 1e3 * (time.perf_counter() - began) / repeats


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference as a share of the reference's norm."""
    found, reference = found.detach().float(), expected.detach().float()
    return float((found - reference).norm() / reference.norm().clamp(min=1e-12))
