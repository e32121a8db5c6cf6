"""What rows have and nothing reads is counted and listed: never ignored without a word, never a wall of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract.spec import DataSpec, parse
from lorajob_runtime.data.check import check, check_text, to_dict
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.data.rows import unused
from lorajob_runtime.data.rows.detect import detect
from lorajob_runtime.report.lines import lines as event_lines

SAID = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def names(row: Any, **data: Any) -> set[str]:
    return detect([row], DataSpec(**data)).convert(row).aside.unused


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input": "Q", "output": "AB", "A": "x", "B": "y"}, {"column A", "column B"}),
        ({"instruction": "Q", "output": "A", "label": 1}, {"column label"}),
        ({"text": "T", "label": "positive"}, {"column label"}),
        ({"text": "T", "label": True}, {"column label"}),
        ({"messages": SAID, "prompt": "Q"}, {"column prompt"}),
        ({"messages": SAID, "text": "Q A"}, {"column text"}),
        ({"messages": [SAID[0], SAID[1] | {"emotion": "joy"}]}, {"turn key emotion"}),
        ({"messages": [SAID[0] | {"reasoning": "why"}, SAID[1]]}, {"turn key reasoning"}),
        ({"messages": [SAID[0], SAID[1] | {"reasoning": ["why"]}]}, {"turn key reasoning"}),
        ({"messages": [SAID[0], SAID[1] | {"thinking": True}]}, {"turn key thinking"}),
        ({"messages": [SAID[0], SAID[1] | {"thinking": "a", "reasoning": "b"}]}, {"turn key thinking"}),
        ({"messages": [{"role": "system", "content": "S"}, *SAID], "system": "other"}, {"column system"}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q", "cache": "x"}]}, SAID[1]]},
            {"part key cache"},
        ),
        (
            {"messages": [SAID[0], {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}, "score": 1}]}]},
            {"call key score"},
        ),
        (
            {"messages": [SAID[0], {"role": "assistant", "tool_calls": [{"function": {"name": "f", "strict": True}}]}]},
            {"call key strict"},
        ),
        ({"messages": SAID, "tools": [{"name": "f"}], "functions": [{"name": "g"}]}, {"column functions"}),
        ({"instruction": "Q", "output": "A", "conversations": None}, set()),
        ({"instruction": "Q", "output": "A", "tags": [], "note": "", "more": {}, "mean": float("nan")}, set()),
        ({"instruction": "Q", "input": "", "output": "A", "history": [], "system": ""}, set()),
        ({"messages": [SAID[0], SAID[1] | {"tool_calls": None, "refusal": None, "name": None}]}, set()),
    ],
)
def test_every_name_that_means_nothing_is_listed(row: Any, expected: set[str]) -> None:
    assert names(row) == expected


def test_a_mapped_column_is_used() -> None:
    row = {"q": "Q", "a": "A", "instruction": "other"}
    assert names(row, columns={"input": "q", "output": "a"}, format="qa") == set()
    assert names({"q": "Q", "a": "A", "b": "B"}, columns={"input": "q", "output": "a"}) == {"column b"}


def test_names_with_as_many_rows_stand_together_and_ids_in_one_line() -> None:
    counts = {"column A": 9, "column B": 9, "column id": 9, "turn key id": 4, "turn key mood": 1, "column C": 2}
    assert unused.lines(counts) == [
        "columns 'A', 'B' (9 rows), 'C' (2 rows)",
        "keys of turns 'mood' (1 row)",
        "'id' (9 rows), which only say which row it is",
    ]


def test_hundreds_of_names_stay_readable() -> None:
    shown = unused.lines({f"column c{number}": 7 for number in range(300)})
    assert shown == [f"columns {', '.join(repr(f'c{number}') for number in range(12))} (7 rows) and 288 more"]


def test_names_that_are_data_take_bounded_memory() -> None:
    counted = unused.UnusedNames()
    for number in range(10_000):
        counted.add([f"column {number}"])
    assert len(counted.counts()) <= 1001
    assert sum(counted.counts().values()) == 10_000
    assert unused.lines(counted.counts())[-1] == "more names than can be counted one by one, 9,000 times"
    assert len(unused.named("column", "x" * 5000)) < 120


def test_a_name_shows_its_blanks_and_cannot_steer_the_terminal() -> None:
    (line,) = unused.lines({"column  output": 1, "column \x1b[2J\u202e": 1})
    assert line == "columns ' output', '\\x1b[2J\\u202e' (1 row)"


ROWS = [
    {"id": 1, "input": "Q", "output": "A", "A": "x"},
    {"id": 2, "input": "Q", "output": "B", "A": "y", "B": "z"},
]


def test_check_lists_them_as_text_and_as_values(smollm2: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    report = check(parse({"data": {"source": str(path)}}), model_path=smollm2.path)
    assert to_dict(report)["unused"] == {"column id": 2, "column A": 2, "column B": 1}
    text = check_text(report, colour=False)
    assert "not used  columns 'A' (2 rows), 'B' (1 row)\n" in text
    assert "not used  'id' (2 rows), which only say which row it is\n" in text


def test_the_report_of_a_run_and_its_console_list_them(smollm2: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    folder = tmp_path / "data"
    prepare(parse({"data": {"source": str(path), "evalRows": ":1"}}), model_path=smollm2.path, folder=folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["unused"] == {"column id": 2, "column A": 2, "column B": 1}
    said = [line.text for line in event_lines({"event": "report", "name": "data"} | report)]
    assert "data: not used: columns 'A' (2 rows), 'B' (1 row)" in said


def test_the_choices_of_a_real_multiple_choice_set_are_named(shared: Path) -> None:
    from lorajob_runtime.data.rows.read import read

    row = next(iter(read(shared / "datasets" / "disc-law-mcq-mult-nje.csv")))
    assert names(row) >= {"column A", "column B", "column C", "column D"}
