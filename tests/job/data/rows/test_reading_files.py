"""Files of every kind, and everything that can be wrong with one: one line, never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import file_of, refused

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.rows import files
from lorajob_runtime.data.rows.read import read

ROW = {"instruction": "你好", "output": "甄\u2028嬛"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps([ROW, ROW])),
        ("lines.jsonl", json.dumps(ROW) + "\n\n" + json.dumps(ROW, ensure_ascii=False)),
        ("lines-under-json.json", json.dumps(ROW) + "\n" + json.dumps(ROW) + "\n"),
        ("list-under-jsonl.jsonl", json.dumps([ROW, ROW], indent=1)),
        ("windows.jsonl", "\ufeff" + json.dumps(ROW) + "\r\n" + json.dumps(ROW) + "\r\n"),
        ("capitals.JSON", json.dumps([ROW, ROW])),
        ("table.csv", "instruction,output\n你好,甄\u2028嬛\n\n你好,甄\u2028嬛\n"),
        ("brackets [1] *.csv", "\ufeffinstruction,output\r\n你好,甄\u2028嬛\r\n你好,甄\u2028嬛\r\n"),
    ],
)
def test_the_same_rows_are_read_from_every_kind_of_file(name: str, content: str, tmp_path: Path) -> None:
    assert list(read(file_of(tmp_path, content, name))) == [ROW, ROW]


def test_values_in_parquet_have_only_the_keys_that_they_have_and_rows_all_columns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "name": "x"}]
    pq.write_table(pa.Table.from_pylist([{"messages": turns, "id": 7}, {"messages": turns}]), tmp_path / "t.parquet")
    assert list(read(tmp_path / "t.parquet")) == [{"messages": turns, "id": 7}, {"messages": turns, "id": None}]


def test_a_csv_value_may_be_as_long_as_any_other(tmp_path: Path) -> None:
    long = "b" * 200_000
    assert list(read(file_of(tmp_path, f"input,output\na,{long}\n", "t.csv"))) == [{"input": "a", "output": long}]


def test_a_single_object_is_one_row(tmp_path: Path) -> None:
    assert list(read(file_of(tmp_path, json.dumps(ROW, indent=2), "one.json"))) == [ROW]


def test_turns_at_the_top_of_a_file_are_one_conversation(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    assert list(read(file_of(tmp_path, json.dumps(turns), "turns.json"))) == [turns]


def test_rows_stay_as_they_are_written_whatever_the_other_rows_hold(tmp_path: Path) -> None:
    rows = [{"a": 1, "t": "2020-01-01 00:00:00"}, {"a": "x"}, {"a": {"b": [1, "2"]}}, {"c": None}]
    assert list(read(file_of(tmp_path, json.dumps(rows), "mixed.json"))) == rows


def test_table_values_are_text_as_written(tmp_path: Path) -> None:
    rows = list(read(file_of(tmp_path, 'input,output\n007,NA\n1e5,"two\nlines"\n,null\n', "t.csv")))
    assert rows == [
        {"input": "007", "output": "NA"},
        {"input": "1e5", "output": "two\nlines"},
        {"input": "", "output": "null"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mark.csv", "\ufeff\n", "is empty"),
        ("mark.json", "\ufeff\n", "is empty"),
        ("separator.json", "\x1c\n", "is empty"),
        ("header.csv", "input,output\n", "has no rows"),
        ("scalar.json", "7", "nothing but a number"),
        ("gbk.json", '{"a": "中文"}'.encode("gbk"), "line 1 is not UTF-8"),
        ("gbk.csv", "a,b\n中,文\n".encode("gbk"), "line 2 is not UTF-8"),
        ("uneven.csv", "a,b\n1,2\n1,2,3\n", "line 3"),
        ("unclosed.csv", 'a,b\n1,2\n"x,3\n', "cannot be read as csv"),
        ("twice.csv", "a,a\n1,2\n", "column 'a' twice"),
        ("not.parquet", "PAR1 or not", "is not Parquet, or not complete"),
        ("rows.xlsx", "x", "'.xlsx': a dataset must be one of .json, .jsonl, .csv, .parquet"),
        ("rows", "x", "rows has no ending: a dataset must be one of"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(
    name: str, content: bytes | str, reason: str, tmp_path: Path
) -> None:
    assert reason in refused(file_of(tmp_path, content, name)).message


_LONG = "x" * (4 << 20)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("list.json", '[{"a": 1},\n{"a": "' + _LONG, 2),
        ("lines.jsonl", '{"a": 1}\n{"a": "' + _LONG, 2),
        ("object.json", '{\n"a":\n"' + _LONG, 1),
        ("quote.csv", 'a,b\n1,2\n3,"' + _LONG, 3),
        ("lines-in-a-quote.csv", 'a,b\n1,2\n3,"' + "line\n" * (1 << 20), 3),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 99 else "",
)
def test_a_row_without_an_end_does_not_take_in_a_whole_file(
    name: str, content: str, line: int, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.ROW_MAX > 1 << 27
    for module in ("rows.json_rows", "rows.csv_rows"):
        monkeypatch.setattr(f"lorajob_runtime.data.{module}.ROW_MAX", 1 << 20)
    written, name = (gzip.compress(content.encode()), f"{name}.gz") if packed else (content, name)

    assert f"line {line} begins a row of more than" in refused(file_of(tmp_path, written, name)).message


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no dataset at"):
        read(tmp_path / "nothing.json")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)


def test_a_name_that_no_file_can_have_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read") as caught:
        read(tmp_path / ("a" * 5000 + ".json"))
    assert len(caught.value.message) < 400
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="is not a regular file"):
        read(tmp_path / "pipe.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = file_of(tmp_path, "[]", "secret.json")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read(path)


def test_nothing_is_left_in_the_users_home_or_among_temporary_files(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,b\n1,2\n", "t.csv")
    code = (
        f"import pathlib; from lorajob_runtime.data.rows import read; print([*read.read(pathlib.Path({str(path)!r}))])"
    )
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PATH": os.environ["PATH"]}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "[{'a': '1', 'b': '2'}]\n"
    assert list(home.iterdir()) == list(temporary.iterdir()) == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(rows=st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), _json, min_size=1), min_size=2, max_size=5))
def test_json_lines_and_a_json_list_are_the_same_rows(
    rows: list[object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    whole = file_of(folder, json.dumps(rows, ensure_ascii=False), "rows.json")
    lines = file_of(folder, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "rows.jsonl")
    assert list(read(lines)) == rows
    assert list(read(whole)) in (rows, [rows])


@given(content=st.binary(max_size=200), kind=st.sampled_from(["json", "jsonl", "csv"]))
def test_no_content_at_all_makes_a_traceback(
    content: bytes, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = file_of(tmp_path_factory.mktemp("any"), content, f"rows.{kind}")
    try:
        rows, message = list(read(path)), ""
    except DataError as error:
        rows, message = [], error.message
    assert rows or message
    assert "\n" not in message
