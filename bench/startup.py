"""How long a run takes from its entry point to its first step, beside the least that any training has to do.

    python bench/startup.py

The weights are in the cache. The least: one process that imports torch, transformers and peft, loads the model,
attaches an adapter and makes one step of one row that is already tokenised. lorajob's: `python -m lorajob_runtime
SPEC`, which also takes hold of its run, looks at the model, tokenises the dataset in a process of its own and trains in
another. The batch is one row, so that the step itself counts for little, and no sample answers are written. Prints one
Markdown table: where lorajob's seconds go, those of the least, and the ratio. All are medians over the rounds, in which
both take turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime import fetch
from lorajob_runtime.contract import events, spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system import environment

LIMIT_SECONDS = 600
PARTS = ("until it holds the run", "weights", "dataset", "training process, until its first step is done")

LEAST = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=targets))
optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-4)
tokens = torch.arange(3, 67).unsqueeze(0)
model(input_ids=tokens, labels=tokens).loss.backward()
optimizer.step()
"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of lorajob: seconds of each of PARTS."""

    seconds: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.seconds)


def spec_of(model: str, data: str | None, root: Path, number: int) -> RunSpec:
    """A run of one step of one row."""
    return spec.parse(
        {
            "name": f"start-{number}",
            "model": {"name": model},
            "data": {"source": data, "rows": ":64"},
            "train": {"maxSteps": 1, "batchSize": 1, "gradientAccumulation": 1, "precision": "bf16"},
            "report": {"samples": {"count": 0}, "swanlab": {"mode": "disabled"}},
            "storage": {"uri": str(root)},
        }
    )


def least(model: Path, threads: dict[str, str]) -> float:
    """Seconds of the least, from the start of its process to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LEAST, str(model)], check=True, env=threads, capture_output=True)
    return time.perf_counter() - began


def lorajob(run: RunSpec, root: Path, threads: dict[str, str]) -> Start:
    """Runs to the end and reads from the event log when the first step was done."""
    file = root / f"{run.run_name}.json"
    file.write_text(spec.dumps(run))
    began = time.time()
    command = [sys.executable, "-m", "lorajob_runtime", str(file), "--processes", "1"]
    done = subprocess.run(command, env=threads, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        sys.exit(f"the run ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return parts(list(events.read(RunFolder(root / str(run.run_name)).events)), began)


def parts(log: Sequence[events.Event], began: float) -> Start:
    """The seconds of PARTS by the times in a run's log."""
    phases = {event["name"]: event["time"] for event in log if event["event"] == "phase"}
    step = next(event["time"] for event in log if event["event"] == "step")
    edges = [began, phases["fetch"], phases["data"], phases["train"], step]
    return Start(seconds=tuple(end - start for start, end in itertools.pairwise(edges)))


def table(starts: Sequence[Start], leasts: Sequence[float]) -> str:
    lines = ["| | s |", "|---|---|"]
    for index, name in enumerate(PARTS):
        lines.append(f"| {name} | {statistics.median(start.seconds[index] for start in starts):.2f} |")
    lines.append(f"| lorajob, to its first step | {statistics.median(start.total for start in starts):.2f} |")
    lines.append(f"| the least, to its first step | {statistics.median(leasts):.2f} |")
    ratios = [start.total / other for start, other in zip(starts, leasts, strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return "\n".join([*lines, "", f"lorajob / the least: {statistics.median(ratios):.2f}x (rounds: {each})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=None, help="a dataset file; default: the shipped example set")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), "OMP_WAIT_POLICY": "passive", **os.environ}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = fetch.fetch(
            spec_of(options.model, None, root, 0).model, environment=environment.read(), notify=print
        ).path
        # what is read for the first time comes from the disk
        least(model, threads)
        starts, leasts = [], []
        for number in range(1, options.rounds + 1):
            starts.append(lorajob(spec_of(options.model, options.data, root, number), root, threads))
            leasts.append(least(model, threads))
            print(
                f"round {number} of {options.rounds}: lorajob {starts[-1].total:.1f} s, the least {leasts[-1]:.1f} s, "
                f"load {os.getloadavg()[0]:.0f}",
                flush=True,
            )
    print()
    print(table(starts, leasts))


if __name__ == "__main__":
    main()
