"""What threads that wait cost: one training with several lengths of libgomp's spinning, taking turns in one run.

    python bench/threads.py                  beside nothing of its own, then beside a busy program a core
    python bench/threads.py --beside 0 4     beside other numbers of them

At the end of every parallel part of a step a thread waits for the others. It spins first, which is quick where the
core is its own and takes the core from the others where it is not, and sleeps then. libgomp spins 300,000 times where
nothing is said, about 3 ms, and never with OMP_WAIT_POLICY=passive. Prints one Markdown table: real tokens a second
after the first step, and the processor's seconds of the whole training, both medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import train

SPINS = (300_000, 10_000, 1_000, 0)
"""As GOMP_SPINCOUNT, which wins over OMP_WAIT_POLICY; the first is libgomp's own."""


@dataclass
class Side:
    """One way to wait, beside so many busy programs."""

    spins: int
    beside: int
    tokens_per_second: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    """The machine's load average after each training."""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Programs that always want a core."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def take_turn(side: Side, folder: train.RunFolder) -> None:
    """Trains once and adds what it measured."""
    began = _processor_seconds()
    measured = train.lorajob(folder, {"GOMP_SPINCOUNT": str(side.spins)})
    side.processor_seconds.append(_processor_seconds() - began)
    side.tokens_per_second.append(measured.tokens_per_second)
    side.load.append(os.getloadavg()[0])


def _processor_seconds() -> float:
    """Of the processes that were started from here and have ended; busy programs are ended outside of a turn."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(sides: Sequence[Side]) -> str:
    lines = ["| beside | spins | tokens/s | ratio | processor's s | load |", "|---|---|---|---|---|---|"]
    for side in sides:
        own = next(each for each in sides if each.beside == side.beside)
        ratios = [a / b for a, b in zip(side.tokens_per_second, own.tokens_per_second, strict=True)]
        lines.append(
            f"| {side.beside} | {side.spins} | {statistics.median(side.tokens_per_second):.0f} "
            f"| {statistics.median(ratios):.2f}x | {statistics.median(side.processor_seconds):.0f} "
            f"| {min(side.load):.0f} to {max(side.load):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train.add_options(parser, steps=4)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--beside", type=int, nargs="+", default=[0, cores], help="busy programs, a table's part each")
    parser.add_argument(
        "--spins", type=int, nargs="+", default=SPINS, help="how often a thread spins; ratios to the first"
    )
    options = parser.parse_args()
    sides = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = train.prepare(train.spec_of(options), Path(scratch))
        for beside in options.beside:
            part = [Side(spins, beside) for spins in options.spins]
            sides += part
            for number in range(1, options.rounds + 1):
                for side in part:
                    with busy(beside):
                        take_turn(side, folder)
                    speed, used = side.tokens_per_second[-1], side.processor_seconds[-1]
                    where = f"beside {beside}, round {number} of {options.rounds}, {side.spins} spins"
                    print(f"{where}: {speed:.0f} tokens/s, {used:.0f} s of the processor", flush=True)
    print()
    print(table(sides))


if __name__ == "__main__":
    main()
