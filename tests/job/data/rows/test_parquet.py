"""Parquet files: their types as JSON has them, and of a large one no more is held than a part."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.read import read


def test_of_a_parquet_file_no_more_than_a_group_of_rows_is_held(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    schema = pa.schema({"text": pa.string()})
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in range(32):
            rows = [{"text": random.Random(group * 100 + row).randbytes(5000).hex()} for row in range(100)]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    tracemalloc.start()

    count = sum(1 for _ in read(path))

    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, path.stat().st_size > 30 << 20) == (3200, True)
    assert most < 12 << 20


def _read(folder: Path, **columns: Any) -> list[Any]:
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return list(read(path))


_TURN = pa.map_(pa.string(), pa.string())


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        (pa.array([1.1, None, 3e38], pa.float32()), [1.1, None, 3e38]),
        (pa.array([np.float16(1.1)], pa.float16()), [1.1]),
        (pa.array([[1.1]], pa.list_(pa.float32())), [[1.1]]),
        (
            pa.array(
                [{"x": {"y": 1.1, "z": None}}], pa.struct({"x": pa.struct({"y": pa.float32(), "z": pa.string()})})
            ),
            [{"x": {"y": 1.1}}],
        ),
        (pa.array([[[("role", "user"), ("content", "Q")]]], pa.list_(_TURN)), [[{"role": "user", "content": "Q"}]]),
        (pa.array([[("a", "1"), ("a", "2")]], _TURN), [[["a", "1"], ["a", "2"]]]),
        (pa.array([[(1, "a")]], pa.map_(pa.int32(), pa.string())), [[[1, "a"]]]),
        (pa.array(["a"]).dictionary_encode(), ["a"]),
        (pa.array([2**63 - 1]), [2**63 - 1]),
    ],
)
def test_a_value_is_read_as_json_has_it(tmp_path: Path, values: Any, read_as: list[Any]) -> None:
    assert [row["answer"] for row in _read(tmp_path, answer=values)] == read_as


@pytest.mark.parametrize("type_", [pa.timestamp("us"), pa.duration("s"), pa.date64()])
def test_a_value_that_cannot_be_read_puts_its_row_at_fault(tmp_path: Path, type_: Any) -> None:
    far = pa.array([1, 2**62, None]).cast(type_)

    rows = _read(tmp_path, answer=["a", "b", "c"], when=far)

    assert [row["answer"] for row in (rows[0], rows[2])] == ["a", "c"]
    assert isinstance(rows[1], RowError)
    assert rows[1].reason.startswith("has a value in the column 'when' that cannot be read: ")


def test_times_are_read_without_pandas_and_without_a_list_of_time_zones(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    moment = pa.array([1_234_567_891], pa.timestamp("ns", "Nowhere/Land"))
    pq.write_table(pa.table({"answer": ["a"], "when": moment, "took": pa.array([1_001], pa.duration("ns"))}), path)
    script = (
        "import pathlib, sys; sys.modules['pandas'] = None; from lorajob_runtime.data.rows.read import read; "
        "print(list(read(pathlib.Path(sys.argv[1]))))"
    )

    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == str(
        [
            {
                "answer": "a",
                "when": datetime.datetime(1970, 1, 1, 0, 0, 1, 234567),
                "took": datetime.timedelta(microseconds=1),
            }
        ]
    )
