"""Rows tokenised and packed a second: a run's preparation against `datasets.map` with the tutorials' function.

    python bench/data.py                                100,000 made-up rows of English, for SmolLM2
    python bench/data.py --data FILE --rounds 3         the rows of a JSON file of instruction, input, output instead
    python bench/data.py --gigabytes 0.5 5              the most memory of each process, for files of these sizes

The baseline is datawhalechina/self-llm's process_func on the same rows and tokenizer, with one and with two processes;
only its `map` is timed. lorajob's seconds are of the process that `lorajob run` starts: reading and hashing the file,
rendering, tokenising, writing; its start, one row by itself, is a row of its own, and is taken off the rate. Before a
speed is printed the tokens and labels of both must be the same, all but the last token of a row: that is the end of a
turn here, and the padding token there. Prints one Markdown table and the ratio to the better baseline.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data import process
from lorajob_runtime.data.tokens import TokenRows
from reading import model_folder
from turns import rounds

MAX_LENGTH = 1024
WAYS = START, LORAJOB, ONE, TWO = (
    "lorajob, start alone", "lorajob, with its start", "datasets.map, num_proc 1", "datasets.map, num_proc 2",
)  # fmt: skip

BASELINE = """
import json, resource, sys, time
import numpy as np
from datasets import Dataset, disable_caching, disable_progress_bars
from transformers import AutoTokenizer

model, source, output, processes, limit = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
disable_caching()
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model)
asked = [{"role": "user", "content": "{harbour}"}]
prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
begin, end = prompt.split("{harbour}")

def process_func(example):
    instruction = tokenizer(f"{begin}{example['instruction'] + example['input']}{end}", add_special_tokens=False)
    response = tokenizer(f"{example['output']}", add_special_tokens=False)
    input_ids = instruction["input_ids"] + response["input_ids"] + [tokenizer.pad_token_id]
    attention_mask = instruction["attention_mask"] + response["attention_mask"] + [1]
    labels = [-100] * len(instruction["input_ids"]) + response["input_ids"] + [tokenizer.pad_token_id]
    if len(input_ids) > limit:
        input_ids, attention_mask, labels = input_ids[:limit], attention_mask[:limit], labels[:limit]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

with open(source, encoding="utf-8") as file:
    rows = Dataset.from_list([json.loads(line) for line in file])
began, used = time.perf_counter(), cpu()
mapped = rows.map(process_func, remove_columns=rows.column_names, num_proc=processes if processes > 1 else None)
print(json.dumps({"seconds": time.perf_counter() - began, "processor_seconds": cpu() - used}))
columns = {name: mapped.data.column(name).combine_chunks() for name in ("input_ids", "labels")}
np.savez(
    output,
    offsets=np.asarray(columns["input_ids"].offsets),
    **{name: column.flatten().to_numpy() for name, column in columns.items()},
)
"""

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """By the clock, and of all processors."""

    seconds: float
    processor_seconds: float


def made_rows() -> Iterator[Row]:
    """Questions of 5 to 30 words and answers of 20 to 120, of 20,000 words by Zipf's law, the same ones every time."""
    chance = random.Random(1)  # noqa: S311 nothing secret
    syllables = [
        first + second for first in "bdfghklmnprstvw" for second in ("a", "e", "i", "o", "u", "en", "ar", "ing")
    ]
    words = ["".join(chance.choices(syllables, k=chance.choice([1, 1, 2, 2, 3, 4]))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / place for place in range(1, len(words) + 1)))

    def said(least: int, most: int, end: str) -> str:
        text = chance.choices(words, cum_weights=weights, k=chance.randint(least, most))
        for place in range(9, len(text), 11):
            text[place] += chance.choice([",", ".", ";"])
        return " ".join(text).capitalize() + end

    while True:
        yield {"instruction": said(5, 30, "?"), "input": "", "output": said(20, 120, ".")}


def rows_of(file: Path | None) -> Iterator[Row]:
    """Rows without end: made up, or those of a file over and over."""
    if file is None:
        return made_rows()
    text = file.read_text("utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    return itertools.cycle({name: row.get(name) or "" for name in ("instruction", "input", "output")} for row in rows)


def write(path: Path, rows: Iterator[Row]) -> None:
    """A file of JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def prepared(source: Path, model: Path, folder: Path) -> Ran:
    """One preparation as `lorajob run` has it done, in a process of its own."""
    began, used = time.perf_counter(), _children()
    process.prepare(_spec(source), model_path=model, folder=folder, log=folder.with_suffix(".log"))
    return Ran(seconds=time.perf_counter() - began, processor_seconds=_children() - used)


def _spec(source: Path) -> RunSpec:
    return parse({"data": {"source": str(source), "maxLength": MAX_LENGTH}})


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def mapped(source: Path, model: Path, output: Path, processes: int) -> Ran:
    """One `datasets.map`."""
    given = [str(model), str(source), str(output), str(processes), str(MAX_LENGTH)]
    ran = subprocess.run([sys.executable, "-c", BASELINE, *given], stdout=subprocess.PIPE, text=True, check=True)
    return Ran(**json.loads(ran.stdout.splitlines()[-1]))


def check_same(ours: TokenRows, theirs: Path) -> None:
    """Raises SystemExit where tokens or labels differ, but for the last token of a row."""
    with np.load(theirs) as found:
        offsets, ids, labels = found["offsets"], found["input_ids"], found["labels"]
    if not np.array_equal(ours.offsets, offsets):
        raise SystemExit("the rows have other lengths than the baseline's: no speed is printed")
    inner = np.ones(len(ids), dtype=np.bool_)
    inner[offsets[1:] - 1] = False
    same_ids = np.array_equal(ours.input_ids[inner], ids[inner])
    same_labels = np.array_equal(np.where(ours.targets, ours.input_ids, -100)[inner], labels[inner])
    if not (same_ids and same_labels):
        raise SystemExit("the rows have other tokens or labels than the baseline's: no speed is printed")


def compare(chosen: argparse.Namespace, folder: Path, model: Path) -> None:
    """Has all ways take turns, and prints the table."""
    source, one = folder / "rows.jsonl", folder / "one.jsonl"
    write(source, itertools.islice(rows_of(chosen.data), chosen.rows))
    write(one, itertools.islice(rows_of(chosen.data), 1))
    runs: dict[str, list[Ran]] = {way: [] for way in WAYS}
    for _ in range(chosen.rounds):
        runs[START].append(prepared(one, model, folder / "start"))
        runs[LORAJOB].append(prepared(source, model, folder / "data"))
        for way, processes in ((ONE, 1), (TWO, 2)):
            runs[way].append(mapped(source, model, folder / "mapped.npz", processes))
            check_same(TokenRows.load(folder / "data" / layout.TRAIN_ROWS), folder / "mapped.npz")
    tokens = len(TokenRows.load(folder / "data" / layout.TRAIN_ROWS).input_ids)
    print(f"{chosen.rows:,} rows, {tokens:,} tokens, the same both ways\n")
    print("| | s | processors' s | rows/s |\n|---|---|---|---|")
    found: dict[str, dict[str, float]] = {}
    for way, every in runs.items():
        seconds, used = _medians(every)
        less = _medians(runs[START])[0] if way == LORAJOB else 0.0
        rate = (1 if way == START else chosen.rows) / max(1e-9, seconds - less)
        found[way] = {"seconds": seconds, "processor_seconds": used, "rows_per_second": rate}
        print(f"| {way} | {seconds:.2f} | {used:.2f} | {rate:.0f} |")
    best = min((ONE, TWO), key=lambda way: found[way]["seconds"])
    less = _medians(runs[START])
    by_clock = found[best]["seconds"] / max(1e-9, found[LORAJOB]["seconds"] - less[0])
    cheapest = min(found[way]["processor_seconds"] for way in (ONE, TWO))
    by_processor = cheapest / max(1e-9, found[LORAJOB]["processor_seconds"] - less[1])
    print(f"\nlorajob without its start / {best}: {by_clock:.2f}x by the clock")
    print(f"lorajob without its start / the cheaper baseline: {by_processor:.2f}x by the processor")
    if chosen.json:
        document = {
            "rows": chosen.rows,
            "tokens": tokens,
            "ways": found,
            "by_clock": by_clock,
            "by_processor": by_processor,
        }
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")


def _medians(runs: list[Ran]) -> tuple[float, float]:
    return statistics.median(run.seconds for run in runs), statistics.median(run.processor_seconds for run in runs)


def write_numbered(path: Path, gigabytes: float) -> None:
    """A file of rows of about 5,000 characters: a few of them over and over, each with its number in front."""
    texts = (" ".join(turn["content"] for turn in turns) for turns in rounds(200, 12))
    some = [json.dumps({"input": "", "output": text})[1:] for text in texts]
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(itertools.cycle(some)):
            if number % 100 == 0 and file.tell() > gigabytes * 1e9:
                return
            file.write(f'{{"instruction": "Question {number}", {row}\n')


def measure_memory(chosen: argparse.Namespace, folder: Path, model: Path) -> None:
    """The most memory of each process of a preparation, for files of some sizes; each is deleted when it is done."""
    print("| GB | rows | tokens | s | processors' s | peak memory MB of each process |\n|---|---|---|---|---|---|")
    found = []
    for gigabytes in chosen.gigabytes:
        source, data = folder / "rows.jsonl", folder / "data"
        write_numbered(source, gigabytes)
        with ThreadPoolExecutor(1) as thread:
            preparing = thread.submit(prepared, source, model, data)
            peaks = _watched(preparing)
        ran = preparing.result()
        report = json.loads((data / layout.DATA_REPORT).read_text())
        size = source.stat().st_size / 1e9
        source.unlink()
        counts = f"{report['rows_used']:,} | {report['tokens']:,} | {ran.seconds:.0f} | {ran.processor_seconds:.0f}"
        print(f"| {size:.2f} | {counts} | {', '.join(f'{peak:.0f}' for peak in peaks)} |", flush=True)
        found.append({"gigabytes": size, "rows": report["rows_used"], "seconds": ran.seconds, "peak_megabytes": peaks})
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def _watched(preparing: Future[Ran]) -> list[float]:
    """The most resident memory in MB of all processes below this one until it is done, the largest first."""
    peaks: dict[int, int] = {}
    while not preparing.done():
        for process_id in _below(os.getpid()):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process_id}/status").read_text()
                held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
                peaks[process_id] = max([peaks.get(process_id, 0), *held])
        time.sleep(0.05)
    return sorted((peak / 1000 for peak in peaks.values()), reverse=True)


def _below(process_id: int) -> list[int]:
    children: list[int] = []
    for listed in Path(f"/proc/{process_id}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, listed.read_text().split())
    return [*children, *(each for child in children for each in _below(child))]


def main() -> None:
    """Runs what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows [100000]")
    parser.add_argument("--data", type=Path, help="JSON file of instruction, input, output, over and over")
    parser.add_argument("--rounds", type=int, default=1, help="times that the ways take turns [1]")
    parser.add_argument("--gigabytes", type=float, nargs="+", help="measure memory for files of these sizes instead")
    parser.add_argument("--model", type=Path, help="folder of the model, SmolLM2 from its package if left out")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    chosen = parser.parse_args()
    model = model_folder(chosen.model)
    with tempfile.TemporaryDirectory(prefix="lorajob-bench-") as folder:
        (measure_memory if chosen.gigabytes else compare)(chosen, Path(folder), model)


if __name__ == "__main__":
    main()
