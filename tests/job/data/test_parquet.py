"""Parquet files that are large: a part of one is held, and not the file."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorajob_runtime.data.read import read


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
