"""Training speed against the tutorials' recipe: same rows, same steps, same machine, taking turns in one run.

    python bench/train.py                                   the shipped example set
    python bench/train.py --data huanhuan.json --system …   another dataset

Prints one Markdown table: real tokens a second (padding does not count), the ratio, the mean loss, peak memory. The
first step of either is not in the speed: allocators and kernels warm up there. Its seconds have a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime import fetch
from lorajob_runtime.contract import events, spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.data.prepare import prepare as prepare_data
from lorajob_runtime.run import launcher
from lorajob_runtime.system import environment
from lorajob_runtime.train.job import TrainJob


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training: real tokens a second after the first step, that step's seconds, mean loss, peak memory."""

    tokens_per_second: float
    first_step_seconds: float
    losses: list[float]
    memory_bytes: int


def measure(tokens: list[int], seconds: list[float], losses: list[float], memory_bytes: int) -> Measured:
    return Measured(
        tokens_per_second=sum(tokens[1:]) / sum(seconds[1:]),
        first_step_seconds=seconds[0],
        losses=losses,
        memory_bytes=memory_bytes,
    )


def prepare(run: RunSpec, root: Path) -> RunFolder:
    """A run folder with the tokenised rows and the plan that both sides read."""
    model = fetch.fetch(run.model, environment=environment.read(), notify=print)
    folder = RunFolder(root)
    prepare_data(run, model_path=model.path, folder=folder.data)
    plan = TrainJob(
        spec=run,
        model_path=str(model.path),
        model_source=model.source,
        model_revision=model.revision,
        base_name=model.source,
        device="auto",
        resume_step=None,
        attempt=1,
    )
    folder.train_job.write_text(plan.dumps())
    return folder


def lorajob(folder: RunFolder, variables: Mapping[str, str] | None = None) -> Measured:
    """Trains in the processes that `lorajob run` starts, and reads the event log. `variables` join the environment."""
    folder.events.unlink(missing_ok=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    inherited = {**os.environ, **(variables or {})}
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
    )


def tutorial(folder: RunFolder) -> Measured:
    """Trains as the tutorials do, in a process of its own."""
    output = folder.root / "tutorial.json"
    command = [sys.executable, str(Path(__file__).with_name("tutorial.py")), str(folder.root), str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = json.loads(output.read_text())
    tokens = [event["tokens"] for event in events.read(folder.events) if event["event"] == "step"]
    return measure(
        tokens,
        [step["seconds"] for step in result["steps"]],
        [step["loss"] for step in result["steps"]],
        result["memory_bytes"],
    )


def table(ours: list[Measured], theirs: list[Measured]) -> str:
    """The Markdown table; speeds are medians over the rounds, the ratio the median of the rounds' ratios."""
    lines = [
        "| | tokens/s | first step s | mean loss | peak memory MiB |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in (("tutorial's recipe", theirs), ("lorajob", ours)):
        lines.append(
            f"| {name} | {statistics.median(r.tokens_per_second for r in rounds):.0f} "
            f"| {statistics.median(r.first_step_seconds for r in rounds):.1f} "
            f"| {statistics.fmean(rounds[0].losses):.4f} "
            f"| {max(r.memory_bytes for r in rounds) / 2**20:.0f} |"
        )
    ratios = [a.tokens_per_second / b.tokens_per_second for a, b in zip(ours, theirs, strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return "\n".join([*lines, "", f"lorajob / tutorial: {statistics.median(ratios):.2f}x (rounds: {each})"])


def add_options(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """What is trained, and how often; `steps` is how many optimizer steps where nothing is said."""
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=None, help="a dataset file; default: the shipped example set")
    parser.add_argument("--system", default=None, help="system prompt")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bf16")


def spec_of(options: argparse.Namespace) -> RunSpec:
    """The run that those options ask for."""
    return spec.parse(
        {
            "name": "bench",
            "model": {"name": options.model},
            "data": {"source": options.data, "system": options.system, "rows": f":{options.rows}"},
            "train": {"maxSteps": options.steps, "precision": options.precision},
            "report": {"samples": {"count": 0}},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(spec_of(options), Path(scratch))
        ours, theirs = [], []
        for number in range(1, options.rounds + 1):
            ours.append(lorajob(folder))
            theirs.append(tutorial(folder))
            print(
                f"round {number} of {options.rounds}: lorajob {ours[-1].tokens_per_second:.0f} tokens/s, "
                f"tutorial {theirs[-1].tokens_per_second:.0f} tokens/s",
                flush=True,
            )
    print()
    print(table(ours, theirs))


if __name__ == "__main__":
    main()
