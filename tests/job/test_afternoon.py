"""A user's afternoon: files as other programs write them, each looked at, trained on and asked, by typed commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lorajob.__main__ import main
from lorajob_runtime.contract import events

pytestmark = pytest.mark.slow

SETTINGS = ["train.maxSteps=2", "train.batchSize=2", "train.gradientAccumulation=1", "report.samples.count=0"]
SETTINGS += ["report.swanlab.mode=disabled", "data.maxLength=256"]


def _spreadsheet(folder: Path) -> Path:
    """As a German Excel writes it: a mark of the encoding, semicolons, a line that names them, an empty row, commas."""
    lines = [
        "sep=;",
        "Frage;Antwort;Anmerkung",
        'Wer zündet die Lampe an?;"Der Wärter, bei Sonnenuntergang.";',
        ";;",
        'Wie hoch ist der Turm?;"Einunddreißig Meter; die Treppe hat 172 Stufen.";geprüft',
        'Was ruft das Horn?;"Zwei Töne:\r\n""lang"" und ""kurz"".";',
        "Wo liegt das Öl?;Im Keller.;1,50",
    ]
    path = folder / "Fragen für Müller.csv"
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig") + b"\r\n")
    return path


def _parquet(folder: Path) -> Path:
    """What `datasets` writes of a table, with a missing answer."""
    from datasets import Dataset

    rows = [{"question": f"Who lit lamp {number}?", "answer": f"Keeper {number}, at dusk."} for number in range(5)]
    path = folder / "train-00000-of-00001.parquet"
    Dataset.from_list([*rows, {"question": "Who lit none?", "answer": None}]).to_parquet(path)
    return path


def _sharegpt(folder: Path) -> Path:
    """Conversations with tools as LlamaFactory has them: the tools and the calls are JSON in text."""
    tool = {
        "name": "tide",
        "description": "Height of the tide.",
        "parameters": {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]},
    }

    def row(hour: int) -> dict[str, Any]:
        turns = [
            ("human", f"How high is the tide at {hour}?"),
            ("function_call", json.dumps({"name": "tide", "arguments": {"hour": hour}})),
            ("observation", json.dumps({"metres": hour / 2})),
            ("gpt", f"It stands at {hour / 2} metres."),
        ]
        return {
            "conversations": [{"from": role, "value": value} for role, value in turns],
            "tools": json.dumps([tool]),
        }

    path = folder / "tides.json"
    path.write_text(json.dumps([row(hour) for hour in range(4)], indent=2))
    return path


def _openai(folder: Path) -> Path:
    """A fine-tuning file for OpenAI's API: earlier answers have weight 0, and are not to be learned."""

    def row(number: int) -> dict[str, Any]:
        turns = [
            {"role": "system", "content": "You keep the light."},
            {"role": "user", "content": f"Lamp {number}?"},
            {"role": "assistant", "content": "UNWANTED answer.", "weight": 0},
            {"role": "user", "content": "Are you sure?"},
            {"role": "assistant", "content": f"Lamp {number} burns.", "weight": 1},
        ]
        return {"messages": turns}

    path = folder / "finetune.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(4)))
    return path


@dataclass(frozen=True, kw_only=True)
class File:
    """What someone has got, and what comes of it."""

    write: Callable[[Path], Path]
    form: str
    rows: int
    dropped: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    trained: tuple[str, ...]
    """What must be among the text with loss of the first rows."""
    untrained: tuple[str, ...] = ()
    """What must be in those rows, and outside of it."""


FILES = {
    "spreadsheet": File(
        write=_spreadsheet,
        form="alpaca",
        rows=5,
        dropped={"empty instruction": 1},
        unused={"column Anmerkung": 2},
        flags=("--columns", "instruction=Frage,output=Antwort"),
        trained=("Der Wärter, bei Sonnenuntergang.",),
        untrained=("Wer zündet die Lampe an?",),
    ),
    "datasets": File(
        write=_parquet,
        form="qa",
        rows=6,
        dropped={"empty output": 1},
        trained=("Keeper 0, at dusk.",),
        untrained=("Who lit lamp 0?",),
    ),
    "tools": File(
        write=_sharegpt,
        form="sharegpt",
        rows=4,
        trained=('"arguments": {"hour": 0}', "It stands at 0.0 metres."),
        untrained=("Height of the tide.", '"metres": 0.0'),
    ),
    "weights": File(
        write=_openai, form="messages", rows=4, trained=("Lamp 0 burns.",), untrained=("UNWANTED answer.",)
    ),
}


def _in_a_process(folder: Path, *arguments: str) -> str:
    """What a command printed on standard output. It must succeed, and nothing must look like a fault."""
    done = subprocess.run(
        [sys.executable, "-m", "lorajob", *arguments],
        cwd=folder,
        env=os.environ | {"LORAJOB_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def _here(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The same in this process, which has imported what answers with a model once for all files."""
    code = main(arguments)
    printed = capsys.readouterr()
    assert code == 0, f"{arguments}: {printed.out}\n{printed.err}"
    return printed.out


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_someone_is_looked_at_trained_on_and_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = FILES[name]
    data = str(file.write(tmp_path))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]

    looked_at = json.loads(
        _here(capsys, "data", "check", data, *file.flags, "--max-length", "256", "--rows-shown", "2", "-o", "json")
    )
    assert looked_at["problem"] is None
    assert (looked_at["format"], looked_at["rows_read"]) == (file.form, file.rows)
    assert (looked_at["rows_dropped"], looked_at["unused"]) == (file.dropped, file.unused)
    assert looked_at["rows_used"] == file.rows - sum(file.dropped.values())
    spans = [span for shown in looked_at["shown"] for span in shown["spans"]]
    trained = "".join(span["text"] for span in spans if span["trained"])
    untrained = "".join(span["text"] for span in spans if not span["trained"])
    assert all(text in trained for text in file.trained), spans
    assert all(text in untrained and text not in trained for text in file.untrained), spans

    printed = _in_a_process(tmp_path, "run", "--data", data, *file.flags, "--name", name, *settings)
    told = list(events.read(tmp_path / "runs" / name / "events.jsonl"))
    (report,) = (event for event in told if event["event"] == "report" and event["name"] == "data")
    for count in ("format", "rows_read", "rows_used", "rows_dropped", "unused", "tokens", "target_tokens"):
        assert report[count] == looked_at[count], count
    assert [event["step"] for event in told if event["event"] == "step"] == [1, 2]
    assert (tmp_path / "runs" / name / "adapter/adapter_model.safetensors").stat().st_size > 0

    (following,) = (line for line in printed.splitlines() if line.startswith("next:"))
    assert f"lorajob generate ./runs/{name}/adapter" in following
    answer = _here(capsys, "generate", f"./runs/{name}/adapter", "--prompt", "Who are you?", "--max-new-tokens", "4")
    assert answer.strip()
