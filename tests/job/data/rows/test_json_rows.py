"""JSON files of every layout, read in pieces: the rows, the texts of their numbers, and where a fault is."""

from __future__ import annotations

import datetime
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import file_of, refused

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.issues import converted
from lorajob_runtime.data.rows.json_values import text_of
from lorajob_runtime.data.rows.load import load
from lorajob_runtime.data.rows.read import read

TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


def _rows(path: Path) -> list[Any]:
    return list(read(path))


@pytest.fixture(params=[1, 7, 1 << 16], ids="in pieces of {}".format)
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes of a list are read at a time, at first."""
    size: int = request.param
    monkeypatch.setattr("lorajob_runtime.data.rows.json_rows._CHUNK", size)
    return size


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('[{"a": 1}, {"a": "é\\"]"}]', [{"a": 1}, {"a": 'é"]'}]),
        ('\n\n [\n{"a": 1}\n,\n{"a": 2}\n]\n\n', [{"a": 1}, {"a": 2}]),
        ('\ufeff[{"a": [1, [2, {}]]}]', [{"a": [1, [2, {}]]}]),
        ('[1, -2, 3.5, true, null, "x", 12]', [1, -2, 3.5, True, None, "x", 12]),
        ('{"a": 1}', [{"a": 1}]),
        ('{\n  "a": 1\n}\n', [{"a": 1}]),
        ('\n\n{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\r\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
        (json.dumps(TURNS), [TURNS]),
        (json.dumps(TURNS, indent=1), [TURNS]),
        (json.dumps([TURNS, TURNS]), [TURNS, TURNS]),
        (json.dumps(TURNS) + "\n" + json.dumps(TURNS), [TURNS, TURNS]),
        ("[]\n[]\n", [[], []]),
        ('[{"a": 1}]\n{"a": 2}\n', [[{"a": 1}], {"a": 2}]),
        ("7\n8\n", [7, 8]),
    ],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
def test_a_file_is_a_list_of_rows_or_one_row_or_a_row_a_line(
    content: str, rows: list[Any], name: str, pieces: int, tmp_path: Path
) -> None:
    del pieces
    written = gzip.compress(content.encode()) if name.endswith(".gz") else content
    assert _rows(file_of(tmp_path, written, name)) == rows


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.json",
            '[{"a": 1}, {"a": 2,}]',
            "line 1 is not JSON: Expecting property name enclosed in double quotes, at",
        ),
        ("a.json", '[{"a": 1},\n {"a": 2},\n]', "line 3 is not JSON: Expecting value, at column 1"),
        ("a.json", '[{"a": 1}\n {"a": 2}]', "line 2 is not JSON: Expecting ',' delimiter, at column 2"),
        ("a.json", '[{"a": 1}, {"b" 2}]', "line 1 is not JSON: Expecting ':' delimiter, at column 17"),
        ("a.json", '[{"a":\n"tab\tinside"}]', "line 2 is not JSON: a line break, tab or other control character in a"),
        ("a.json", '[{"a": "raw\nline"}]', r"in a string, written \n, \t or \u, at column 12"),
        ("a.json", '[{"a": "b"}, {"a": "Name a tree', "line 1 is not JSON: Unterminated string, at column 20"),
        ("a.json", '[{"a": "b"}, {"a": ', "line 1 is not JSON: Expecting value, at column 20, where the text ends"),
        ("a.json", '[{"a": "b"}', "line 1 is not JSON: Expecting ',' delimiter, at column 12, where the text ends"),
        (
            "a.json",
            "[{'a': 'b'}]",
            "line 1 is not JSON: Expecting property name enclosed in double quotes, at column 3",
        ),
        ("a.json", '[{"a": tru}]', "line 1 is not JSON: Expecting value, at column 8"),
        ("a.json", '[{"a": "\\x"}]', "line 1 is not JSON: Invalid \\escape, at column 9"),
        ("a.json", '[{"a": 1}] x', "line 1 is not JSON: Extra data behind the value, at column 12"),
        ("a.json", '[\n{"a": 1}\n]\n[\n{"a": 2}\n]', "line 4 is not JSON: Extra data behind the value, at column 1"),
        ("a.json", '{\n"a": 1\n}\n{\n"a": 2\n}', "line 4 is not JSON: Extra data behind the value, at column 1"),
        ("a.json", '{"a": 1},\n{"a": 2}\n', "line 1 is not JSON: Extra data behind the value, at column 9"),
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n{"a": \n', "line 3 is not JSON: Expecting value, at column 7, where the text"),
        ("a.jsonl", '{"a": \n{"a": 2}\n', "line 1 is not JSON: Expecting value, at column 7"),
        ("a.jsonl", '{"a": 1}\n{"a": 2} {"a": 3}\n', "line 2 is not JSON: Extra data behind the value, at column 10"),
        ("a.jsonl", '{"a": 1}\n\ufeff{"a": 2}\n', "line 2 is not JSON: a byte order mark, which may only begin a file"),
        ("a.jsonl", '[{"a": 1}]\n[{"a": 2}\n', "line 2 is not JSON: Expecting ',' delimiter, at column 10"),
        ("a.json", "[" * 100_000, "line 1 is not JSON that can be read: it is nested too deeply"),
        ("a.jsonl", '{"a": 1}\n' + "[" * 100_000, "line 2 is not JSON that can be read: it is nested too deeply"),
        ("a.json", '[{"a": "b"},\n{"a": "\xe9"}]'.encode("latin-1"), "line 2 is not UTF-8"),
        ("a.jsonl", '{"a": "b"}\n{"a": "\xe9"}'.encode("latin-1"), "line 2 is not UTF-8"),
        ("a.json", "hello", "line 1 is not JSON: Expecting value, at column 1"),
        ("a.json", "instruction,output\na,b\n", "line 1 is not JSON: Expecting value, at column 1"),
        ("a.json", '"text"', "holds nothing but text: it must hold rows"),
        ("a.json", "null", "holds nothing but null: it must hold rows"),
        ("a.json", "5", "holds nothing but a number: it must hold rows"),
        ("a.json", "[]", "has no rows"),
    ],
)
def test_a_fault_is_named_with_its_line_and_column_and_the_whole_reason(
    name: str, content: str | bytes, said: str, pieces: int, tmp_path: Path
) -> None:
    del pieces
    assert said in refused(file_of(tmp_path, content, name)).message


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.json", '// mine\n[{"a": 1}]', "JSON has no comments"),
        ("a.json", '[{"a": 1}, # one\n {"a": 2}]', "JSON has no comments"),
        ("a.json", '[{"a": 1} /* one */, {"a": 2}]', "JSON has no comments"),
        ("a.json", '[{"a": 1},\n {"a": 2},\n]', "remove the comma behind the last"),
        ("a.jsonl", '{"a": [1, 2,]}', "remove the comma behind the last"),
        ("a.jsonl", '{"a": 1},\n{"a": 2},\n', "write a row a line, with nothing between and behind them"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', "write a row a line, with nothing between and behind them"),
        ("a.json", '{\n"a": 1\n}\n{\n"a": 2\n}\n', "or one list with commas between the rows"),
        ("a.json", "[{'a': 1}]", "written as Python or JavaScript has it"),
        ("a.jsonl", "{'a': 1}\n", "written as Python or JavaScript has it"),
        ("a.jsonl", '{"a": None}\n', "written as Python or JavaScript has it"),
        ("a.json", '[{a: "x"}]', "written as Python or JavaScript has it"),
        ("a.jsonl", b'{"a": 1}\n\0\0\0\0', "was not written completely"),
        ("a.json", "instruction,output\na,b\n", "holds a list of rows or a row a line"),
        ("a.jsonl", '{"a": "b" "c"}', "correct it there"),
    ],
)
def test_what_helps_against_a_fault_of_json_is_said(name: str, content: str | bytes, hint: str, tmp_path: Path) -> None:
    assert hint in refused(file_of(tmp_path, content, name)).hint


_text = st.text(st.characters(codec="utf-8"), max_size=6)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(_json, min_size=1, max_size=5),
    cut=st.integers(0, 200),
    ascii_only=st.booleans(),
    piece=st.integers(1, 40),
)
def test_a_list_in_pieces_is_what_it_is_in_one_and_so_is_its_fault(
    rows: list[Any], cut: int, ascii_only: bool, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=1)
    broken = text[:cut].rstrip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorajob_runtime.data.rows.json_rows._CHUNK", piece)
        assert _rows(file_of(folder, text)) == rows
        said = _said_of(file_of(folder, broken))

    assert said == _said_of(file_of(folder, broken, "whole.json")).replace("whole.json", "rows.json")
    if broken != text:
        reason = _reason(broken)
        assert f"line {reason.lineno} " in said or "is empty" in said


def _said_of(path: Path) -> str:
    try:
        read(path)
    except DataError as error:
        return error.message
    return ""


def _reason(text: str) -> json.JSONDecodeError:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    return caught.value


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_key_that_is_there_twice_with_two_values_is_said(name: str, tmp_path: Path) -> None:
    rows = [
        '{"instruction": "Name a fruit", "output": "Apple", "output": "Pear"}',
        '{"instruction": "Name a fruit", "output": "Apple", "output": "Apple"}',
        '{"messages": [{"role": "user", "role": "assistant", "content": "A"}]}',
    ]
    text = f"[{', '.join(rows)}]" if name.endswith(".json") else "\n".join(rows)

    found = _rows(file_of(tmp_path, text, name))

    assert [str(row) for row in found if isinstance(row, RowError)] == [
        "has the key 'output' twice, with two values",
        "has the key 'role' twice, with two values",
    ]
    assert found[1] == {"instruction": "Name a fruit", "output": "Apple"}


@pytest.mark.parametrize(
    "written",
    [
        *("1.10", "1e22", "1E5", "-0", "-0.0", "0.1000000000000000055511151231257827", "12345678901234567890123"),
        *("1.0", "100", "0.30000000000000004", "1e400", "9" * 5000, "Infinity", "-Infinity"),
    ],
)
def test_a_number_keeps_the_text_that_it_has_in_the_file(written: str, tmp_path: Path) -> None:
    (row,) = _rows(file_of(tmp_path, f'[{{"output": {written}}}]'))
    assert str(row["output"]) == f"{row['output']}" == written
    assert isinstance(row["output"], int | float)


def test_numbers_keep_their_text_in_turns_that_are_json_text_and_in_results_that_are_objects(tmp_path: Path) -> None:
    said = '[{"role": "user", "content": 1e22}, {"role": "assistant", "content": 1.10}]'
    asked = '{"role": "user", "content": "Q"}, {"role": "tool", "content": {"price": 1.10, "n": [1E5, -0]}}'
    rows = [
        f'{{"messages": {json.dumps(said)}}}',
        f'{{"messages": [{asked}, {{"role": "assistant", "content": "A"}}]}}',
    ]
    loaded = load(DataSpec(source=str(file_of(tmp_path, "\n".join(rows), "rows.jsonl"))))

    first, second = (converted(loaded.form, row) for row in loaded.source)

    assert isinstance(first, Conversation)
    assert [message["content"] for message in first.messages] == ["1e22", "1.10"]
    assert isinstance(second, Conversation)
    assert second.messages[1]["content"] == '{"price": 1.10, "n": [1E5, -0]}'


def test_a_key_twice_in_turns_that_are_json_text_is_said(tmp_path: Path) -> None:
    good = [{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}]
    twice = [{"messages": '[{"role": "user", "content": "Q", "content": "R"}, {"role": "assistant", "content": "A"}]'}]
    loaded = load(DataSpec(source=str(file_of(tmp_path, json.dumps(good + twice)))))

    fault = [converted(loaded.form, row) for row in loaded.source][1]

    assert isinstance(fault, RowError)
    assert fault.reason == "the conversation has the key 'content' twice, with two values"


@given(value=_json)
def test_a_value_without_odd_numbers_is_written_as_python_writes_it(value: Any) -> None:
    assert text_of(value) == json.dumps(value, ensure_ascii=False)


def test_what_json_has_no_form_for_is_a_fault_of_its_row() -> None:
    with pytest.raises(RowError, match="has a datetime in what is to be written as JSON"):
        text_of({"at": [datetime.datetime(2026, 1, 1)]})


def test_a_file_of_one_long_line_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = json.dumps({"input": "é" * 500, "output": "b" * 500})
    with path.open("w", encoding="utf-8") as file:
        file.write("[" + row)
        for _ in range(20_000):
            file.write(", " + row)
        file.write("]")

    tracemalloc.start()
    source = read(path)
    count = sum(1 for _ in source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (len(source), count) == (20_001, 20_001)
    assert peak < path.stat().st_size / 10


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, '[{"a": 1}]')
    source = read(path)
    path.write_text('[{"a": 1}, {"a": 2}]')
    with pytest.raises(DataError, match="was changed while it was read"):
        list(source)
