"""Rows of a Parquet file, a batch at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lorajob_runtime.contract.text import quoted, truncate
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.files import DataPath, FileError, unpacked

_BATCH_ROWS = 256
_BUFFER = 1 << 20
"""Of a column, that is read at a time: pyarrow would fetch the whole file ahead, as is quick where it lies far away."""
_INDEX = re.compile(r"__index_level_\d+__")


def rows(file: DataPath) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a file, each with every column, a null as None; a RowError stands for one that cannot be used.

    Raises DataError.
    """
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
            readers = {name: _reader(table.schema_arrow.field(name).type) for name in columns}
            for batch in table.iter_batches(_BATCH_ROWS):
                values = {name: _column(name, batch.column(name), readers[name]) for name in columns}
                for index in range(batch.num_rows):
                    yield _row({name: column[index] for name, column in values.items()})
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise FileError(f"{file} cannot be read as parquet: {truncate(error, 160)}") from error


def _row(values: dict[str, Any]) -> dict[str, Any] | RowError:
    return next((value for value in values.values() if isinstance(value, RowError)), values)


def _column(name: str, values: Any, read: Callable[[Any], Any]) -> list[Any]:
    """The values of a column as JSON has them; a RowError stands for one that cannot be read."""
    import pyarrow as pa

    # no time is trained, and a time zone or a nanosecond needs what may not be installed
    for is_such, of_unit in (
        (pa.types.is_timestamp, pa.timestamp),
        (pa.types.is_duration, pa.duration),
        (pa.types.is_time64, pa.time64),
    ):
        if is_such(values.type):
            values = values.cast(of_unit("us" if values.type.unit == "ns" else values.type.unit), safe=False)
    try:
        found = values.to_pylist()
    except (pa.ArrowException, ArithmeticError, ValueError):
        found = [_one(name, value) for value in values]
    return [value if value is None or isinstance(value, RowError) else read(value) for value in found]


def _one(name: str, value: Any) -> Any:
    import pyarrow as pa

    try:
        return value.as_py()
    except (pa.ArrowException, ArithmeticError, ValueError) as error:
        return RowError(f"has a value in the column {quoted(name)} that cannot be read: {truncate(error, 100)}")


def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a JSON value of a value of this Arrow type, as `to_pylist` gives it.

    A null inside a value stands for a key that it does not have: a column gives every value the keys of all. Numbers of
    half and single precision become the double that is written alike: 1.1, and not 1.100000023841858.
    """
    import numpy as np
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _reader(kind.value_type)
    if pa.types.is_struct(kind):
        return _of_struct({field.name: _reader(field.type) for field in kind})
    if pa.types.is_map(kind):
        return _of_map(_reader(kind.item_type))
    if _is_list(kind):
        of_item = _reader(kind.value_type)
        return lambda items: [None if item is None else of_item(item) for item in items]
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        exact = np.float16 if pa.types.is_float16(kind) else np.float32
        return lambda number: float(str(exact(number)))
    return (lambda number: f"{number:f}") if pa.types.is_decimal(kind) else lambda value: value


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        is_one(kind)
        for is_one in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_fixed_size_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    )


def _of_struct(readers: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda value: {key: readers[key](item) for key, item in value.items() if item is not None}


def _of_map(of_item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A map as the object that it is. Its pairs stay a list where that would lose one, or where a key is no text."""

    def read(pairs: Sequence[tuple[Any, Any]]) -> Any:
        found = [(key, None if item is None else of_item(item)) for key, item in pairs]
        made = dict(found) if all(isinstance(key, str) for key, _ in found) else {}
        return made if len(made) == len(found) else [list(pair) for pair in found]

    return read
