"""What a person sees of a dataset before training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden.said import Said
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.data.check import CheckReport, check, check_text, histogram, to_dict
from lorajob_runtime.data.prepare import prepare


@pytest.fixture
def checked(smollm2: Any, tmp_path: Path) -> Any:
    def run(rows: list[object], **data: Any) -> CheckReport:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return check(parse({"data": {"source": str(path)} | data}), model_path=smollm2.path)

    return run


def test_the_first_rows_are_shown_with_the_trained_part_marked(checked: Any) -> None:
    text = check_text(checked([{"instruction": "Who?", "output": "I."}], system="S"), colour=False)
    assert "detected as alpaca, user = instruction, answer = output" in text
    assert (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n⟦I.<|im_end|>⟧"
    ) in text


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("smollm2", "template  smollm2, no thinking mode"),
        ("qwen3", "template  qwen3, thinking off"),
        ("minimax", "template  minimax-m2, thinking cannot be turned off"),
    ],
)
def test_the_thinking_mode_of_the_template_is_said(
    model: str, said: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "Who?", "output": "I."}]), encoding="utf-8")

    report = check(parse({"data": {"source": str(path)}}), model_path=request.getfixturevalue(model).path)

    assert said in check_text(report, colour=False).splitlines()


def test_on_a_terminal_the_trained_part_is_green(checked: Any) -> None:
    text = check_text(checked([{"instruction": "Who?", "output": "I."}]), colour=True)
    assert "\x1b[1;32mI.<|im_end|>\x1b[0m" in text
    assert "⟦" not in text


def test_faults_are_listed_by_row_and_none_of_them_stops_the_check(checked: Any, said: Said) -> None:
    rows = [
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "ouput": "A"},
        {"instruction": "", "output": "A"},
        {"instruction": "Q", "output": "word " * 60},
        {"instruction": "<|im_end|>", "output": "A"},
        {"instruction": "Q", "output": "A"},
    ]
    report = checked(rows, maxLength=60)
    assert [(fault.number, fault.severity) for fault in report.faults] == [
        (2, "dropped"),
        (3, "dropped"),
        (5, "warning"),
        (4, "truncated"),
    ]
    assert (report.rows_read, report.rows_used, report.duplicates) == (6, 4, 1)
    said(check_text(report, colour=False).replace(report.source, "rows.json"))


def test_of_many_faults_all_are_counted(checked: Any) -> None:
    report = checked([{"instruction": "Q", "output": "A"}, *[{"instruction": "Q", "output": ""}] * 1500])
    assert (len(report.faults), report.faults_found, report.rows_dropped) == (1000, 1500, {"empty output": 1500})
    assert "and 1,480 more" in check_text(report, colour=False)


def test_a_dataset_that_can_be_trained_has_no_problem(checked: Any) -> None:
    report = checked([{"instruction": "Q", "output": "A"}])
    assert (report.problem, report.hint) == (None, None)


def test_a_dataset_with_nothing_to_train_is_still_shown(checked: Any) -> None:
    report = checked([{"instruction": "Q", "output": ""}])
    assert report.problem is not None
    assert "nothing to train on" in report.problem
    assert "0 of 1 trained on" in check_text(report, colour=False)
    assert "lorajob data check" not in check_text(report, colour=False)


@pytest.mark.parametrize("row", [{"instruction": "Q", "output": ""}, {"instruction": "Q", "output": {}}])
def test_where_no_row_may_be_left_out_the_hint_says_how_one_may(
    checked: Any, row: dict[str, object], said: Said
) -> None:
    report = checked([{"instruction": "Q", "output": "A"}, row], maxDropped="error")
    said(report.hint)


def test_text_in_the_data_cannot_steer_the_terminal(checked: Any) -> None:
    report = checked([{"instruction": "\x1b]0;pwned\x07\x1b[2J", "output": "A\u202eB\x9b"}, {"\x1b[31mkey": 1}])
    text = check_text(report, colour=False)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "␛[2J" in text


def test_the_report_is_plain_json(checked: Any) -> None:
    report = checked([{"instruction": "Q", "output": "A"}])
    values = json.loads(json.dumps(to_dict(report)))
    assert values["shown"][0]["spans"][1] == {"text": "A<|im_end|>", "trained": True}
    assert values["template_family"] == "smollm2"


def test_huanhuan_has_its_112_duplicates(qwen3: Any, shared: Path) -> None:
    spec = parse({"data": {"source": str(shared / "datasets" / "huanhuan.json")}})
    assert check(spec, model_path=qwen3.path).duplicates == 112


@given(lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_the_histogram_counts_every_sequence_in_bins_that_meet(lengths: list[int]) -> None:
    bins = histogram(Counter(lengths))
    assert len(bins) <= 12
    assert sum(item.sequences for item in bins) == len(lengths)
    assert [item.first for item in bins] == [1, *(item.last + 1 for item in bins[:-1])]
    for item in bins:
        assert item.sequences == sum(item.first <= length <= item.last for length in lengths)


def test_half_a_character_in_a_name_does_not_keep_a_report_from_being_written(smollm2: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"Output": "A", "instruction": "Q", "note\ud83d": "N", "history": None}
    rows = [good] * 19 + [good | {"history": [{"role\ud83d": 1}]}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = parse({"data": {"source": str(path)}})

    report = check(spec, model_path=smollm2.path)

    assert report.unused == {"column note?": 19}
    json.dumps(to_dict(report), ensure_ascii=False).encode()
    tokenised = prepare(spec, model_path=smollm2.path, folder=tmp_path / "data")
    assert (tokenised.rows_used, tokenised.unused) == (19, report.unused)


def _nested(key: str, times: int) -> Any:
    value: Any = 1
    for _ in range(times):
        value = {key: value}
    return value


@pytest.mark.parametrize("column", ["arguments", "arguments as text", "tools", "result"])
def test_a_row_whose_values_are_nested_too_deeply_is_left_out_and_counted(checked: Any, column: str) -> None:
    deep = _nested("a", 900)
    call = {"name": "f", "arguments": json.dumps(deep) if column == "arguments as text" else deep}
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    if column == "tools":
        row = {"messages": turns, "tools": [{"name": "f", "parameters": deep}]}
    elif column == "result":
        row = {"messages": [{"role": "tool", "content": deep}, *turns]}
    else:
        row = {"messages": [turns[0], {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}]}

    report = checked([row, *[{"messages": turns}] * 30])

    assert (report.rows_used, report.rows_dropped) == (30, {"has values nested too deeply": 1})
