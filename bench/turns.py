"""What long conversations cost to prepare, against the same text as single rounds, taking turns in one run.

    python bench/turns.py                               64 conversations of 60 rounds, for SmolLM2
    python bench/turns.py --rows 512 --model FOLDER     more of them, for another model's tokenizer and chat template
    python bench/turns.py --length 1 --rows 10000 --rounds 5 --beside FOLDER
                                                        single rounds, beside the code in another checkout of this
                                                        repository (git worktree add FOLDER COMMIT)

The seconds are the processor's, which other programs change little; the memory is the most of the process that does
it. The start, one round alone, comes before in the same process. Prints one Markdown table, and the ratios.
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

from reading import WITHOUT_TORCH, measured, model_folder

PREPARE = f"""{WITHOUT_TORCH}
import time
from pathlib import Path
from lorajob_runtime.data.prepare import prepare
try:
    from lorajob_runtime.contract.spec import parse
except ModuleNotFoundError:
    # as an older checkout has it
    from lorajob_runtime.spec import parse
model, folder, *sources = sys.argv[1:]
for source in sources:
    began = time.process_time() if source != sources[0] else 0
    spec = parse({{"data": {{"source": source, "maxLength": 1000000}}}})
    report = prepare(spec, model_path=Path(model), folder=Path(folder))
    assert report.rows_used == report.rows_read
"""
"""Prepares one file after another, and counts the last one alone."""
WORDS = (
    "river", "stone", "lamp", "harbour", "winter", "bread", "engine",
    "letter", "garden", "tide", "mountain", "clock", "paper", "silver",
)  # fmt: skip

WAYS = START, SINGLE, WHOLE = "start", "single rounds", "conversations"

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
    parser.add_argument("--beside", type=Path, help="another checkout of this repository, which takes turns with it")
    chosen = parser.parse_args()
    model = model_folder(chosen.model)
    checkouts = {"": None} | ({"beside: ": chosen.beside} if chosen.beside else {})
    found: dict[tuple[str, str], list[tuple[float, float]]] = {(name, way): [] for name in checkouts for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="lorajob-bench-") as folder:
        paths = {way: Path(folder) / f"{way}.jsonl" for way in WAYS}
        write(paths[START], rounds(1, 1), single=True)
        write(paths[SINGLE], rounds(chosen.rows, chosen.length), single=True)
        write(paths[WHOLE], rounds(chosen.rows, chosen.length), single=False)
        for _ in range(chosen.rounds):
            for (name, way), runs in found.items():
                sources = dict.fromkeys((str(paths[START]), str(paths[way])))
                ran = measured(PREPARE, str(model), f"{folder}/data", *sources, checkout=checkouts[name])
                runs.append(ran)
    print("| | processor's s | peak memory MB |\n|---|---|---|")
    medians = {key: [statistics.median(run[part] for run in runs) for part in (0, 1)] for key, runs in found.items()}
    for (name, way), (seconds, memory) in medians.items():
        print(f"| {name}{way} | {seconds:.2f} | {memory:.0f} |")

    def ratio(one: tuple[str, str], other: tuple[str, str]) -> str:
        return f"{medians[one][0] / medians[other][0]:.2f}x"

    print(f"\nconversations / single rounds: {ratio(('', WHOLE), ('', SINGLE))}")
    for name in list(checkouts)[1:]:
        for way in (SINGLE, WHOLE):
            print(f"{way}, this checkout / the one beside it: {ratio(('', way), (name, way))}")


if __name__ == "__main__":
    main()
