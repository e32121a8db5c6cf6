"""Rows of a Parquet file, a batch at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from lorajob_runtime.data.files import DataPath, FileError, unpacked
from lorajob_runtime.data.wording import brief

_BATCH_ROWS = 256
_BUFFER = 1 << 20
"""Of a column, that is read at a time: pyarrow would fetch the whole file ahead, as is quick where it lies far away."""
_INDEX = re.compile(r"__index_level_\d+__")


def rows(file: DataPath) -> Iterator[dict[str, Any]]:
    """The rows of a file, each with every column; a null is None. Raises DataError."""
    import pyarrow as pa  # loads slowly, and only this kind of file needs it
    import pyarrow.parquet as pq

    with unpacked(file) as content:
        try:
            table = pq.ParquetFile(content, pre_buffer=False, buffer_size=_BUFFER)
            names = table.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise FileError(f"{file} has the column {twice[0]!r} twice: give one of them another name")
            # numbers of rows that pandas writes beside them
            columns = [name for name in names if _INDEX.fullmatch(name) is None]
            for batch in table.iter_batches(_BATCH_ROWS):
                for row in _short_floats(batch.select(columns)).to_pylist():
                    yield {name: _plain(value) for name, value in row.items()}
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise FileError(f"{file} cannot be read as parquet: {brief(error, 160)}") from error


def _short_floats(batch: Any) -> Any:
    """Numbers of single precision as the double that is written alike: 1.1, and not 1.100000023841858."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_float32(field.type):
            exact = batch.column(place).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(place, field.name, exact)
    return batch


def _plain(value: Any) -> Any:
    """A null inside a value stands for a key that it does not have: a column gives every value the keys of all."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return f"{value:f}" if isinstance(value, Decimal) else value
