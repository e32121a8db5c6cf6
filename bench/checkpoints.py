"""What a checkpoint costs the training thread: written by it, as before, and by a thread beside it.

    python bench/checkpoints.py                     adapters with their moments of 8, 32 and 256 MB
    python bench/checkpoints.py --megabytes 1000

A small random model with an adapter of a rank that gives the size, on the CPU. Prints a Markdown table of medians over
the rounds: how long training stands still for a checkpoint that it writes itself, and for one that a thread writes; and
how much longer the steps are that are made while that thread is at work than steps alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from transformers import Qwen3Config, Qwen3ForCausalLM

from lorajob_runtime.contract import spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train import checkpointing, session
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.session import Session
from lorajob_runtime.train.step import train_step

HIDDEN, LAYERS, VOCABULARY, ROW = 512, 4, 4096, 256
STEPS_A_CHECKPOINT = 4
NUMBERS_A_RANK = LAYERS * HIDDEN * (2 * 7 + 2 * 2)
"""Of the seven projections of a layer, each as wide as the stream but for the MLP's, which are three times that."""


def begin(megabytes: float, root: Path) -> Session:
    """A session one step in, whose adapter takes so much with both moments."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=HIDDEN // 8,
    )
    Qwen3ForCausalLM(config).save_pretrained(root / "model")
    folder = RunFolder(root / "run")
    folder.data.mkdir(parents=True)
    rows = 64
    ids = np.random.default_rng(0).integers(3, VOCABULARY, size=rows * ROW).astype(np.int32)
    TokenRows(ids, np.ones(len(ids), dtype=bool), np.arange(rows + 1, dtype=np.int64) * ROW).save(folder.train_rows)
    folder.data_report.write_text(json.dumps({"fingerprint": "random"}))
    folder.sample_prompts.write_text(json.dumps({"stop_ids": [], "samples": []}))
    rank = max(1, round(megabytes * 1e6 / 12 / NUMBERS_A_RANK))
    run = {
        "name": "bench",
        "model": {"name": str(root / "model")},
        "lora": {"rank": rank, "dropout": 0.0},
        "train": {"batchSize": 2, "gradientAccumulation": 1, "precision": "fp32"},
    }
    job = TrainJob(
        spec=spec.parse(run),
        model_path=str(root / "model"),
        model_source="random",
        model_revision="",
        base_name="random",
        device="cpu",
        resume_step=None,
        attempt=1,
    )
    started = session.start(job, folder, session.join_process_group(job))
    train_step(started, 1)
    return started


def seconds_of_steps(run: Session, first: int) -> float:
    began = time.perf_counter()
    for step in range(first, first + STEPS_A_CHECKPOINT):
        train_step(run, step % run.steps.total_steps + 1)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[8, 32, 256])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lines = ["| MB | written by training s | by a thread s | steps beside it, s more |", "|---|---|---|---|"]
    for megabytes in options.megabytes:
        itself, beside, slower = [], [], []
        with tempfile.TemporaryDirectory() as scratch:
            run = begin(megabytes, Path(scratch))
            size = 12 * sum(item.numel() for item in run.model.parameters() if item.requires_grad) / 1e6
            with checkpointing.Writer(run) as checkpoints:
                for number in range(1, options.rounds + 1):
                    began = time.perf_counter()
                    checkpoints.save(2 * number, evaluation_pending=False)
                    checkpoints.wait()
                    itself.append(time.perf_counter() - began)
                    alone = seconds_of_steps(run, number)
                    began = time.perf_counter()
                    checkpoints.save(2 * number + 1, evaluation_pending=False)
                    beside.append(time.perf_counter() - began)
                    slower.append(seconds_of_steps(run, number) - alone)
                    checkpoints.wait()
        columns = [f"{statistics.median(each):.3f}" for each in (itself, beside, slower)]
        lines.append(f"| {size:.0f} | {' | '.join(columns)} |")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
