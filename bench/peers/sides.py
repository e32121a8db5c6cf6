"""Trains once on each side, on the rows of a run folder and in the order of its steps, and reads what it measured."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import events
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.run import launcher
from lorajob_runtime.system import cgroup
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.schedule import Schedule

from . import rows as token_rows
from .measured import Failed, Measured, Outcome, measure

BENCH = Path(__file__).resolve().parents[1]
ENVIRONMENTS = Path(__file__).with_name("environments")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LIMIT_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A trainer of others, in one of its settings: `side` is its environment, and its program's name."""

    side: str
    packed: bool
    """Rows of a step are joined to at most data.maxLength tokens, one such pack a micro-batch."""


PEERS = {
    "TRL, padding-free": Peer(side="trl", packed=False),
    "TRL, packed": Peer(side="trl", packed=True),
    "LLaMA-Factory": Peer(side="llamafactory", packed=False),
    "LLaMA-Factory, neat packing": Peer(side="llamafactory", packed=True),
}


def python_of(side: str) -> Path:
    """The interpreter of a peer's environment, which `make bench-peers` builds."""
    return ENVIRONMENTS / side / "bin" / "python"


def same_threads(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of every side: as many threads as cores, which sleep while they wait, and no hub.

    How threads wait is not what is compared; bench/threads.py does that.
    """
    ours = {"OMP_NUM_THREADS": str(cgroup.usable_cores()), "OMP_WAIT_POLICY": "passive"}
    return {**ours, **variables, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def schedule(job: TrainJob, rows: int) -> Schedule:
    train = job.spec.train
    batch = train.batch_size * train.gradient_accumulation
    return Schedule(rows=rows, global_batch=batch, epochs=train.epochs, max_steps=train.max_steps, seed=train.seed)


def steps_of(job: TrainJob, rows: TokenRows) -> list[list[int]]:
    """The row numbers of every step."""
    steps = schedule(job, len(rows))
    return [steps.rows_of(step) for step in range(1, steps.total_steps + 1)]


def lorajob(folder: RunFolder, variables: Mapping[str, str] | None = None) -> Measured:
    """Trains in the processes that `lorajob run` starts, and reads the event log. `variables` join the environment.

    Raises what the training ended with.
    """
    folder.events.unlink(missing_ok=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    inherited = {**os.environ, **(variables or {})}
    began = _processor_seconds()
    training = launcher.Training(launcher.Launch(folder=folder, attempt=1, processes=1, variables=inherited))
    while not training.ended(1):
        pass
    if error := training.error:
        raise error
    steps = [event for event in events.read(folder.events) if event["event"] == "step"]
    return measure(
        [step["tokens"] for step in steps],
        [step["tokens"] / step["tokens_per_second"] for step in steps],
        [step["loss"] for step in steps],
        steps[-1]["memory_bytes"],
        processor_seconds=_processor_seconds() - began,
        load=os.getloadavg()[0],
    )


def tutorial(folder: RunFolder, variables: Mapping[str, str]) -> Outcome:
    """Trains as the tutorials do, in a process of its own."""
    output = folder.root / "tutorial.json"
    command = [sys.executable, str(BENCH / "tutorial.py"), str(folder.root), str(output)]
    return run_program(command, folder, output, variables)


def peer(name: str, folder: RunFolder, variables: Mapping[str, str]) -> Outcome:
    """Trains with one of PEERS, in a process of its environment."""
    chosen = PEERS[name]
    with tempfile.TemporaryDirectory() as scratch:
        settings = settings_of(folder, Path(scratch), packed=chosen.packed)
        given = Path(scratch, "settings.json")
        given.write_text(json.dumps(settings))
        program = Path(__file__).with_name(f"{chosen.side}_side.py")
        command = [str(python_of(chosen.side)), str(program), str(given)]
        return run_program(command, folder, Path(settings["output"]), variables)


def settings_of(folder: RunFolder, scratch: Path, *, packed: bool) -> dict[str, Any]:
    """What a peer's program is given, its rows written below `scratch`. Raises ValueError for a step of fewer rows."""
    job = train_job.loads(folder.train_job.read_text())
    rows = TokenRows.load(folder.train_rows)
    train, lora = job.spec.train, job.spec.lora
    steps = steps_of(job, rows)
    wanted = train.batch_size * train.gradient_accumulation
    if short := [step for step, numbers in enumerate(steps, start=1) if len(numbers) != wanted]:
        raise ValueError(f"step {short[0]} has fewer than {wanted} rows: peers need whole steps, so take more --rows")
    batch, accumulation = train.batch_size, train.gradient_accumulation
    groups: list[Sequence[int]] = [[number] for numbers in steps for number in numbers]
    if packed:
        lengths = [[len(rows.row(number)[0]) for number in numbers] for numbers in steps]
        packs = token_rows.packs_of_steps(lengths, job.spec.data.max_length)
        groups = [[steps[step][i] for i in group] for step, each in enumerate(packs) for group in each]
        batch, accumulation = 1, len(packs[0])
    token_rows.write(scratch / "rows.jsonl", rows, groups)
    bf16 = train.precision == "bf16"
    return {
        "model": job.model_path,
        "rows": str(scratch / "rows.jsonl"),
        "output": str(scratch / "output.json"),
        "scratch": str(scratch / "work"),
        "device": "auto" if _has_gpu() else "cpu",
        "dtype": "bfloat16" if bf16 else "float32",
        "autocast": bf16,
        "batch_size": batch,
        "gradient_accumulation": accumulation,
        "steps": len(steps),
        "learning_rate": train.learning_rate,
        "weight_decay": train.weight_decay,
        "max_gradient_norm": train.max_grad_norm,
        "scheduler": train.scheduler,
        "seed": train.seed,
        "max_length": job.spec.data.max_length,
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "targets": TARGETS,
    }


def run_program(command: list[str], folder: RunFolder, output: Path, variables: Mapping[str, str]) -> Outcome:
    """Runs a program that writes what `steps.write` writes."""
    output.unlink(missing_ok=True)
    began = _processor_seconds()
    try:
        done = subprocess.run(
            command, env=dict(variables), capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Failed(reason=f"not done after {LIMIT_SECONDS} s")
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        return Failed(reason=f"ended with {done.returncode}: {last.strip()[:200]}")
    used = _processor_seconds() - began
    result = json.loads(output.read_text())
    rows = TokenRows.load(folder.train_rows)
    steps = steps_of(train_job.loads(folder.train_job.read_text()), rows)
    tokens = [sum(len(rows.row(number)[0]) for number in numbers) for numbers in steps]
    measured = measure(
        tokens,
        [step["seconds"] for step in result["steps"]],
        [step["loss"] for step in result["steps"]],
        result["memory_bytes"],
        versions=result["versions"],
    )
    return replace(measured, processor_seconds=used, load=os.getloadavg()[0])


def _processor_seconds() -> float:
    """Of the processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
