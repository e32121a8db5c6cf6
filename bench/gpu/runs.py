"""Whole training processes on the card, several at once: beside transformers.Trainer, each other, and after a stop.

python -m gpu.runs            all of them
python -m gpu.runs fp32 nf4   some of them, and the comparisons that they make possible
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from training_runs import random_rows, steps_of, write_run
from transformers import Qwen3Config, Qwen3ForCausalLM

from gpu.results import HAS_GPU, say
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import event_log
from lorajob_runtime.train import job as train_job

STEPS, RESUMED_AT = 12, 6
LIMIT_SECONDS = 240
TRAIN: dict[str, Any] = {
    "batchSize": 2,
    "gradientAccumulation": 3,
    "learningRate": 5e-3,
    "maxSteps": STEPS,
    "saveSteps": RESUMED_AT,
}
PROGRAMS = Path(__file__).resolve().parents[2] / "tests/job/train/programs"
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _settings(dropout: float = 0.0, **train: Any) -> dict[str, Any]:
    return {"lora": {"dropout": dropout}, "train": {**TRAIN, **train}}


RUNS: dict[str, dict[str, Any]] = {
    "fp32": _settings(precision="fp32"),
    "bf16": _settings(precision="bf16"),
    "bf16 again": _settings(precision="bf16"),
    "bf16 under torchrun": _settings(precision="bf16"),
    "dropout, recomputed": _settings(0.1, precision="bf16", gradientCheckpointing=True),
    "dropout, kept": _settings(0.1, precision="bf16", gradientCheckpointing=False),
    "nf4": _settings(precision="bf16"),
}
COMPARED = (
    # the order in which flash's backward pass adds up may be another each time
    ("bf16 beside fp32", "bf16", "fp32", 3e-2),
    ("the same run twice", "bf16 again", "bf16", 1e-2),
    ("under torchrun beside alone", "bf16 under torchrun", "bf16", 1e-2),
    ("activations recomputed beside kept, with dropout", "dropout, recomputed", "dropout, kept", 1e-2),
)
"""(name, run, reference, the most that a step's losses may differ, as a share)."""


def small_model(folder: Path) -> Path:
    """A Qwen3 of four layers, with heads that the flash kernel takes."""
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def run_folder(root: Path, model: Path, settings: dict[str, Any], **more: Any) -> RunFolder:
    """A run folder as the supervisor leaves it, to be trained on the card where there is one."""
    folder = write_run(root, model, random_rows(120), settings, **more)
    job = dataclasses.replace(train_job.loads(folder.train_job.read_text()), device="auto" if HAS_GPU else "cpu")
    folder.train_job.write_text(job.dumps())
    return folder


def start(folder: RunFolder, *, under_torchrun: bool = False) -> subprocess.Popen[bytes]:
    worker = ["-m", "lorajob_runtime.train", str(folder.root)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"] if under_torchrun else []
    return subprocess.Popen([sys.executable, *torchrun, *worker], **QUIET)


def start_reference(folder: RunFolder, output: Path) -> subprocess.Popen[bytes]:
    """transformers.Trainer in fp32 on the CPU, on the rows of that run."""
    code = f"import sys; sys.path.insert(0, {str(PROGRAMS)!r}); import reference_trainer as r; r.main(sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", code, str(folder.root), str(output)], **QUIET)


def losses(folder: RunFolder) -> list[float]:
    return [step["loss"] for step in steps_of(folder)]


def worst(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference of a step's losses as a share; infinite where a step is missing."""
    if not found or len(found) != len(expected):
        return float("inf")
    return max(abs(mine - other) / abs(other) for mine, other in zip(found, expected, strict=True))


def compare(trained: Mapping[str, Sequence[float]]) -> None:
    """Says how near the runs are that should be."""
    for name, run, reference, bar in COMPARED:
        if run in trained and reference in trained:
            difference = worst(trained[run], trained[reference])
            say("run", name, difference < bar, worst=difference)


def resume(folder: RunFolder, model: Path) -> None:
    """Trains a finished run again from its first checkpoint, as after a kill."""
    before = losses(folder)
    (folder.checkpoint(STEPS) / layout.MANIFEST).unlink(missing_ok=True)
    event_log.cut_back(folder.events, RESUMED_AT)
    again = run_folder(folder.root, model, RUNS["fp32"], resume_step=RESUMED_AT, attempt=2)
    status = start(again).wait(timeout=LIMIT_SECONDS)
    difference = worst(losses(again), before)
    name = f"resumed at step {RESUMED_AT} beside never stopped"
    say("run", name, status == 0 and difference < 1e-4, status=status, worst=difference)


def main(asked: Sequence[str]) -> None:
    names = list(asked) or list(RUNS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = small_model(root / "model")
        folders = {}
        for number, name in enumerate(names):
            settings = RUNS[name] | ({"model": {"name": str(model), "quantize": "nf4"}} if name == "nf4" else {})
            folders[name] = run_folder(root / f"run-{number}", model, settings)
        jobs = {name: start(each, under_torchrun="torchrun" in name) for name, each in folders.items()}
        reference = start_reference(folders["fp32"], root / "reference.json") if "fp32" in folders else None
        for name, job in jobs.items():
            status = job.wait(timeout=LIMIT_SECONDS)
            found = losses(folders[name])
            cause = folders[name].cause(0)
            why = json.loads(cause.read_text())["message"][:200] if cause.exists() else ""
            passed = status == 0 and len(found) == STEPS and found[-1] < found[0]
            say("run", name, passed, status=status, first=found[:1], last=found[-1:], why=why)
        trained = {name: losses(folder) for name, folder in folders.items()}
        compare(trained)
        if reference is not None:
            status = reference.wait(timeout=LIMIT_SECONDS)
            expected = json.loads((root / "reference.json").read_text())["losses"] if status == 0 else []
            difference = worst(trained["fp32"], expected)
            say("run", "fp32 beside transformers.Trainer", difference < 1e-3, status=status, worst=difference)
            resume(folders["fp32"], model)


if __name__ == "__main__":
    main(sys.argv[1:])
