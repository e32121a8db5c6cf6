"""A value that is missing is the same in every kind of file, however the file says that it is missing."""

from __future__ import annotations

import csv
import decimal
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.issues import converted
from lorajob_runtime.data.rows.load import load
from lorajob_runtime.data.rows.read import read

Row = dict[str, Any]
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def _json(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def _csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(max(rows, key=len)))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
            )


def _without(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


WAYS: dict[str, tuple[str, Callable[[Path, list[Row]], None]]] = {
    "null in JSON": (".json", _json),
    "no key in JSON": (".json", lambda path, rows: _json(path, _without(rows))),
    "NaN in JSON": (
        ".json",
        lambda path, rows: _json(path, [{n: math.nan if v is None else v for n, v in row.items()} for row in rows]),
    ),
    "empty text in JSON": (
        ".json",
        lambda path, rows: _json(path, [{n: "" if v is None else v for n, v in row.items()} for row in rows]),
    ),
    "empty cell of a table": (".csv", _csv),
    "null in Parquet": (".parquet", lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path)),
}


@pytest.mark.parametrize("place", [0, 1, 2], ids="row {}".format)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("good", "missing", "reason"),
    [
        ({"instruction": "Q", "output": "A"}, "output", "empty output"),
        ({"instruction": "Q", "output": "A"}, "instruction", "empty instruction"),
        ({"input": "Q", "output": "A", "id": 7}, "output", "empty output"),
        ({"question": "Q", "answer": "A"}, "answer", "empty output"),
        ({"text": "A", "source": "web"}, "text", "empty text"),
        ({"messages": TURNS}, "messages", "empty conversation"),
        ({"messages": TURNS, "tools": []}, "messages", "empty conversation"),
        ({"instruction": "Q", "output": "A", "system": "S"}, "system", None),
        ({"instruction": "Q", "output": "A", "history": [["q", "a"]]}, "history", None),
    ],
)
def test_a_missing_value_drops_its_row_where_it_is_needed(
    good: Row, missing: str, reason: str | None, way: str, place: int, tmp_path: Path
) -> None:
    rows = [dict(good) for _ in range(3)]
    rows[place][missing] = None
    ending, write = WAYS[way]
    path = tmp_path / f"rows{ending}"
    write(path, rows)

    loaded = load(DataSpec(source=str(path)))
    found = [converted(loaded.form, row) for row in loaded.source]

    said = [item.reason if isinstance(item, RowError) else None for item in found]
    assert said == [reason if index == place else None for index in range(3)]
    assert all(item.droppable for item in found if isinstance(item, RowError))


@pytest.mark.parametrize("ending", [".json", ".parquet"])
@pytest.mark.parametrize(("turn", "reason"), [(0, "empty question"), (1, "empty answer")])
def test_a_turn_without_its_content_drops_its_row(turn: int, reason: str, ending: str, tmp_path: Path) -> None:
    turns = [dict(said) for said in TURNS]
    turns[turn]["content"] = None
    rows = [{"messages": TURNS}, {"messages": turns}]
    path = tmp_path / f"rows{ending}"
    _json(path, rows) if ending == ".json" else pq.write_table(pa.Table.from_pylist(rows), path)

    loaded = load(DataSpec(source=str(path)))
    found = [converted(loaded.form, row) for row in loaded.source]

    assert isinstance(found[1], RowError)
    assert (found[1].reason, found[1].droppable) == (reason, True)
    assert not isinstance(found[0], RowError)


def test_numbers_of_a_parquet_file_are_written_as_they_stand_there(tmp_path: Path) -> None:

    table = pa.table(
        {
            "single": pa.array([1.1, None, math.nan], pa.float32()),
            "double": pa.array([1.1, None, 1e22], pa.float64()),
            "exact": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-0.05")], pa.decimal128(12, 2)),
            "whole": pa.array([7, None, 2**62], pa.int64()),
            "__index_level_0__": pa.array([0, 1, 2]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")

    first, second, third = read(tmp_path / "rows.parquet")

    assert {name: str(value) for name, value in first.items()} == {
        "single": "1.1",
        "double": "1.1",
        "exact": "1.10",
        "whole": "7",
    }
    assert set(second.values()) == {None}
    assert (third["exact"], third["whole"]) == ("-0.05", 2**62)
    assert math.isnan(third["single"])


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:

    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="has the column 'text' twice"):
        read(tmp_path / "rows.parquet")
