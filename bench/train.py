"""Training speed beside the tutorials' recipe, TRL and LLaMA-Factory: the same rows, steps and machine, taking turns.

    make bench-peers                                        an environment for each of the others, once
    python bench/train.py                                   the shipped example set
    python bench/train.py --data huanhuan.json --system …   another dataset
    python bench/train.py --sides lorajob tutorial          some of them

Losses come first: a side whose losses are not those of the tutorials' recipe (or else of the first side) gets no speed
but the reason. Prints one Markdown table: real tokens a second (padding does not count), the first step's seconds,
the mean loss, peak memory, and the processor's seconds of the whole training; `--json FILE` keeps everything. The first
step of each is not in the speed: allocators and kernels warm up there. Its seconds have a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from lorajob_runtime import fetch
from lorajob_runtime.contract import spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.data.prepare import prepare as prepare_data
from lorajob_runtime.system import environment
from lorajob_runtime.train.job import TrainJob
from peers import measured, sides
from peers.measured import Failed, Measured, Outcome
from peers.sides import lorajob

__all__ = ["Measured", "RunFolder", "add_options", "lorajob", "prepare", "spec_of"]

SIDES = ("lorajob", "tutorial", "trl", "llamafactory")
TUTORIAL = "tutorial's recipe"
VERSIONS = ("torch", "transformers", "peft", "accelerate", "lorajob")


def prepare(run: RunSpec, root: Path) -> RunFolder:
    """A run folder with the tokenised rows and the job that all sides read."""
    model = fetch.fetch(run.model, environment=environment.read(), notify=print)
    folder = RunFolder(root)
    prepare_data(run, model_path=model.path, folder=folder.data)
    job = TrainJob(
        spec=run,
        model_path=str(model.path),
        model_source=model.source,
        model_revision=model.revision,
        base_name=model.source,
        device="auto",
        resume_step=None,
        attempt=1,
    )
    folder.train_job.write_text(job.dumps())
    return folder


def add_options(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """What is trained, and how often; `steps` is how many optimizer steps where nothing is said."""
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=None, help="a dataset file; default: the shipped example set")
    parser.add_argument("--system", default=None, help="system prompt")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))


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


def turns(asked: Sequence[str], folder: RunFolder, variables: dict[str, str]) -> dict[str, Callable[[], Outcome]]:
    """What trains once on each side, by its row of the table."""
    found: dict[str, Callable[[], Outcome]] = {}
    if "tutorial" in asked:
        found[TUTORIAL] = lambda: sides.tutorial(folder, variables)
    for name, peer in sides.PEERS.items():
        if peer.side in asked:
            found[name] = lambda name=name: sides.peer(name, folder, variables)  # type: ignore[misc]
    if "lorajob" in asked:
        found["lorajob"] = lambda: lorajob(folder, variables)
    return found


def missing(asked: Sequence[str]) -> list[str]:
    """The peers asked for that have no environment here."""
    return [side for side in asked if side in ("trl", "llamafactory") and not sides.python_of(side).exists()]


def take_turns(each: dict[str, Callable[[], Outcome]], rounds: int) -> dict[str, list[Outcome]]:
    """Trains once on every side in each round, and says how it went, without speeds: losses are compared first."""
    found: dict[str, list[Outcome]] = {name: [] for name in each}
    for number in range(1, rounds + 1):
        for name, train_once in each.items():
            began = time.monotonic()
            outcome = train_once()
            found[name].append(outcome)
            done = f"failed: {outcome.reason}" if isinstance(outcome, Failed) else "trained"
            took = time.monotonic() - began
            print(f"round {number} of {rounds}, {name}: {done}, {took:.0f} s with its start", flush=True)
    return found


def about(options: argparse.Namespace, found: dict[str, list[Outcome]]) -> dict[str, object]:
    """Command, date, machine and versions, for the JSON."""
    loads = [each.load for rounds in found.values() for each in rounds if isinstance(each, Measured)]
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "load": [min(loads, default=0.0), max(loads, default=0.0)],
        "python": sys.version.split()[0],
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "options": vars(options) | {"json": None if options.json is None else str(options.json)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=8)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--json", type=Path, default=None, help="a file that gets every figure")
    options = parser.parse_args()
    if absent := missing(options.sides):
        names = " and ".join(absent)
        sys.exit(
            f"{names}: no environment in {sides.ENVIRONMENTS}; `make bench-peers` builds it, --sides leaves it out"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(spec_of(options), Path(scratch))
        each = turns(options.sides, folder, sides.same_threads(os.environ))
        found = take_turns(each, options.rounds)
    reference = next(iter(each))
    facts = about(options, found)
    if options.json is not None:
        options.json.write_text(json.dumps(measured.as_json(found, reference, facts), indent=1))
    low, high = facts["load"]  # type: ignore[misc]
    print(f"\n{facts['date']}, {facts['cores']} cores, load {low:.0f} to {high:.0f}")
    print(measured.table(found, reference))


if __name__ == "__main__":
    main()
