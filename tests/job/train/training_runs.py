"""Token rows and run folders that training can start from, as the supervisor leaves them."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lorajob_runtime.contract import events, spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train.job import TrainJob

VOCABULARY = 320
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def random_rows(count: int, *, seed: int = 0, longest: int = 60) -> TokenRows:
    """Rows of different lengths, of each of which the later part carries loss."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, longest, size=count)
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    targets = np.concatenate([np.arange(length) >= max(1, length // 2) for length in lengths])
    # a tenth of the vocabulary, so that there is something to learn
    ids = rng.integers(3, VOCABULARY // 10, size=int(offsets[-1])).astype(np.int32)
    return TokenRows(ids, targets, offsets)


def write_run(
    root: Path,
    model: Path,
    rows: TokenRows,
    settings: dict[str, Any] | None = None,
    *,
    eval_rows: TokenRows | None = None,
    resume_step: int | None = None,
    attempt: int = 1,
) -> RunFolder:
    """A run folder as the supervisor leaves it for training. Settings are the spec's, in fp32 without dropout."""
    folder = RunFolder(root)
    folder.data.mkdir(parents=True, exist_ok=True)
    rows.save(folder.train_rows)
    if eval_rows is not None:
        eval_rows.save(folder.eval_rows)
    folder.sample_prompts.write_text(json.dumps({"stop_ids": [2], "samples": []}))
    fingerprint = hashlib.sha256(rows.input_ids.tobytes()).hexdigest()
    folder.data_report.write_text(json.dumps({"fingerprint": fingerprint}))
    base = {"name": "t", "model": {"name": str(model)}, "lora": {"dropout": 0.0}, "train": {"precision": "fp32"}}
    job = TrainJob(
        spec=spec.parse(spec.merge(base, settings or {})),
        model_path=str(model),
        model_source=str(model),
        model_revision="",
        base_name=str(model),
        device="cpu",
        resume_step=resume_step,
        attempt=attempt,
    )
    folder.train_job.write_text(job.dumps())
    return folder


def start_training(folder: RunFolder, *, processes: int = 1) -> subprocess.Popen[bytes]:
    """Starts the workers as the supervisor does: one directly, several under torchrun."""
    worker = ["-m", "lorajob_runtime.train", str(folder.root)]
    return subprocess.Popen([sys.executable, *_torchrun(processes), *worker], env=os.environ | ONE_THREAD, **QUIET)


def _torchrun(processes: int) -> list[str]:
    if processes == 1:
        return []
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [*torchrun, "--nproc-per-node", str(processes), "--max-restarts", "0"]


def run_training(folder: RunFolder, *, processes: int = 1) -> int:
    """Trains to the end and returns the exit code."""
    return start_training(folder, processes=processes).wait(timeout=300)


def run_nodes(folders: list[RunFolder]) -> list[int]:
    """Trains one run on nodes of one process each, every one with a folder of its own; returns their exit codes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    nodes = []
    for node, folder in enumerate(folders):
        torchrun = ["-m", "torch.distributed.run", "--nnodes", str(len(folders)), "--node-rank", str(node)]
        torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port), "--nproc-per-node", "1"]
        worker = ["--max-restarts", "0", "-m", "lorajob_runtime.train", str(folder.root)]
        nodes.append(subprocess.Popen([sys.executable, *torchrun, *worker], env=os.environ | ONE_THREAD, **QUIET))
    try:
        return [node.wait(timeout=300) for node in nodes]
    finally:
        # one alone would wait for the other
        for node in nodes:
            node.kill()


def steps_of(folder: RunFolder) -> list[events.Event]:
    return [event for event in events.read(folder.events) if event["event"] == "step"]
