"""What long conversations cost to prepare, against the same text as single rounds, taking turns in one run.

    python bench/turns.py                               64 conversations of 60 rounds, for SmolLM2
    python bench/turns.py --rows 512 --model FOLDER     more of them, for another model's tokenizer and chat template

The seconds are the processor's, which other programs change little; the memory is the most of the process that does
it. The start is one round alone. Prints one Markdown table, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reading import measured, model_folder

PREPARE = """
import json, sys
from pathlib import Path
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.spec import parse
spec = parse({"data": {"source": sys.argv[1], "maxLength": 1000000}})
report = prepare(spec, model_path=Path(sys.argv[2]), folder=Path(sys.argv[3]))
assert report.rows_used == report.rows_read
"""
WORDS = (
    "river", "stone", "lamp", "harbour", "winter", "bread", "engine",
    "letter", "garden", "tide", "mountain", "clock", "paper", "silver",
)  # fmt: skip

Message = dict[str, Any]


def rounds(rows: int, length: int) -> Iterator[list[Message]]:
    """Conversations of so many questions of 18 words and answers of 60, the same ones every time."""
    chance = random.Random(0)  # noqa: S311 nothing secret

    def said(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words)) + "."

    for _ in range(rows):
        turns = ((said(18), said(60)) for _ in range(length))
        yield [
            {"role": role, "content": content}
            for turn in turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]


def write(path: Path, conversations: Iterator[list[Message]], *, single: bool) -> None:
    """A file of conversations, or of each of their rounds as one."""
    with path.open("w", encoding="utf-8") as file:
        for messages in conversations:
            parts = [messages[at : at + 2] for at in range(0, len(messages), 2)] if single else [messages]
            file.writelines(json.dumps({"messages": part}) + "\n" for part in parts)


def main() -> None:
    """Writes the files, measures each in a process of its own, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="conversations [64]")
    parser.add_argument("--length", type=int, default=60, help="rounds of each [60]")
    parser.add_argument("--rounds", type=int, default=1, help="times that the ways take turns [1]")
    parser.add_argument("--model", type=Path, help="folder of the model, SmolLM2 from its package if left out")
    chosen = parser.parse_args()
    model = model_folder(chosen.model)
    found: dict[str, list[tuple[float, float]]] = {"start": [], "single rounds": [], "conversations": []}
    with tempfile.TemporaryDirectory(prefix="lorajob-bench-") as folder:
        paths = {way: Path(folder) / f"{way}.jsonl" for way in found}
        write(paths["start"], rounds(1, 1), single=True)
        write(paths["single rounds"], rounds(chosen.rows, chosen.length), single=True)
        write(paths["conversations"], rounds(chosen.rows, chosen.length), single=False)
        for _ in range(chosen.rounds):
            for way, path in paths.items():
                found[way].append(measured(PREPARE, str(path), str(model), f"{folder}/data"))
    print("| | processor's s | peak memory MB |\n|---|---|---|")
    for way, runs in found.items():
        seconds, memory = (statistics.median(run[part] for run in runs) for part in (0, 1))
        print(f"| {way} | {seconds:.1f} | {memory:.0f} |")
    start, single, whole = (statistics.median(run[0] for run in runs) for runs in found.values())
    print(f"\nconversations / single rounds, without the start: {(whole - start) / max(single - start, 1e-9):.2f}x")


if __name__ == "__main__":
    main()
