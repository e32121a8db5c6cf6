"""Files as people have them, in files_from_elsewhere/: what is right for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.issues import converted
from lorajob_runtime.data.rows.load import load
from lorajob_runtime.data.rows.read import read

HERE = Path(__file__).parents[1] / "files_from_elsewhere"
FRUIT_AND_TREE = [{"instruction": "Name a fruit", "output": "Apple"}, {"instruction": "Name a tree", "output": "Oak"}]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("good.csv", FRUIT_AND_TREE),
        ("good.parquet", FRUIT_AND_TREE),
        ("csv_excel_sep.csv", FRUIT_AND_TREE[:1]),
        ("csv_header_trailing.csv", FRUIT_AND_TREE),
        ("csv_index.csv", FRUIT_AND_TREE),
    ],
)
def test_a_file_is_read_as_it_was_meant(name: str, rows: list[Any]) -> None:
    assert list(read(HERE / name)) == rows


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("csv_backslash.csv", 'line 2 cannot be read as csv: a quote inside a quoted value is written ""'),
        ("csv_first_extra.csv", "line 2 has 3 values, the header 2"),
        ("csv_first_row_only.csv", "line 2 has 4 values, the header 3"),
        ("csv_space_header.csv", "line 1 names a column ' output'"),
        ("csv_text_commas.csv", "line 2 has 3 values, the header 1"),
        ("csv_trailing_comma.csv", "line 2 has 4 values, the header 3"),
        ("json_ctrl.json", "line 1 is not JSON: a line break, tab or other control character in a string, written"),
        ("json_lfs.json", "is a Git LFS pointer and not the file it stands for: fetch that with `git lfs pull`"),
        ("json_truncated.json", "line 1 is not JSON: Unterminated string, at column 70"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(HERE / name)
    assert f"{name} {said}" in caught.value.message


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("pq_null.parquet", [None, "empty output", None]),
        ("pq_null_first.parquet", ["empty instruction", None, None]),
        ("pq_msgs_null.parquet", ["empty conversation", None]),
        ("pq_text_null.parquet", [None, "empty text"]),
        ("json_dupkey.json", ["has the key 'output' twice, with two values"]),
    ],
)
def test_rows_that_cannot_be_used_are_named_and_the_others_are_used(name: str, reasons: list[str | None]) -> None:
    if not any(reason is None for reason in reasons):
        with pytest.raises(DataError, match=reasons[0]):
            load(DataSpec(source=str(HERE / name)))
        return
    loaded = load(DataSpec(source=str(HERE / name)))
    found = [converted(loaded.form, row) for row in loaded.source]
    assert [item.reason if isinstance(item, RowError) else None for item in found] == reasons


def test_numbers_are_trained_as_the_file_writes_them() -> None:
    loaded = load(DataSpec(source=str(HERE / "json_numbers.json")))
    answers = [converted(loaded.form, row).messages[-1]["content"] for row in loaded.source]
    assert answers == ["1.10", "1e22", "0.1000000000000000055511151231257827", "12345678901234567890123"]
