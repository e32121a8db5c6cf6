"""Reads a dataset file row by row. A file that cannot be read is one DataError that says where.

A file is read twice and never held: once to its end, to count its rows and to find every fault of the file, then by who
wants the rows. Only Parquet needs a library, which loads when such a file is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lorajob_runtime.data.rows import csv_rows, json_rows, parquet_rows
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.files import DataPath, FileError, Stamp, hashed, located, opened, stamp
from lorajob_runtime.data.rows.json_rows import Layout, OtherLayout

HEAD_ROWS = 200
"""Rows that the form of a file is found from."""

_NAMES_MAX = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset file as read to its end once.

    `head` are its first rows that can be used, JSON values as the file has them; `names` are the keys and columns
    that its rows have. `sha256` and `size_bytes` are of the content, unpacked.
    """

    path: Path
    sha256: str
    size_bytes: int
    count: int
    head: tuple[object, ...]
    names: frozenset[str]
    file: DataPath
    layout: Layout
    stamp: Stamp

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[object]:
        """All rows; a RowError stands for one that cannot be used. Raises DataError when the file has changed."""
        self._refuse_change()
        yield from _rows(self.file, self.layout)
        self._refuse_change()

    def until(self, stop: int) -> Iterator[object]:
        """The rows before the one at `stop`."""
        return islice(iter(self), stop)

    def _refuse_change(self) -> None:
        if stamp(self.file) != self.stamp:
            raise FileError(f"{self.path} was changed while it was read", hint="run the same again")


def read(path: Path) -> Source:
    """A .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, or one of these compressed as .gz.

    Raises DataError when it is missing, a folder, of another kind, unreadable, broken or empty.
    """
    file = located(path)
    before = stamp(file)
    layout: Layout = "lines"
    if file.kind == "json":
        with opened(file) as (reader, _):
            layout = json_rows.layout_of(file, reader)
    try:
        return _scanned(file, layout, before)
    except OtherLayout as other:
        return _scanned(file, other.layout, before)


def _scanned(file: DataPath, layout: Layout, before: Stamp) -> Source:
    if file.kind == "parquet":
        sha256, size = hashed(file)
        count, head, names = _surveyed(parquet_rows.rows(file))
    else:
        with opened(file) as (reader, content):
            count, head, names = _surveyed(_rows_of_text(file, reader, layout))
        sha256, size = content.digest.hexdigest(), content.size
    if not count:
        raise FileError(f"{file} {'has no rows' if _has_text(file) else 'is empty'}")
    return Source(
        path=file.path,
        sha256=sha256,
        size_bytes=size,
        count=count,
        head=head,
        names=names,
        file=file,
        layout=layout,
        stamp=before,
    )


def _surveyed(rows: Iterable[object]) -> tuple[int, tuple[object, ...], frozenset[str]]:
    count, head, names = 0, list[object](), set[str]()
    for row in rows:
        count += 1
        if len(head) < HEAD_ROWS and not isinstance(row, RowError):
            head.append(row)
        if isinstance(row, dict) and len(names) < _NAMES_MAX:
            names.update(row)
    return count, tuple(head), frozenset(names)


def _rows(file: DataPath, layout: Layout) -> Iterator[object]:
    if file.kind == "parquet":
        yield from parquet_rows.rows(file)
        return
    with opened(file) as (reader, _):
        yield from _rows_of_text(file, reader, layout)


def _rows_of_text(file: DataPath, reader: io.BufferedReader[Any], layout: Layout) -> Iterator[object]:
    return csv_rows.rows(file, reader) if file.kind == "csv" else json_rows.rows(file, reader, layout)


def _has_text(file: DataPath) -> bool:
    """Whether more than blanks is in a file that has no rows."""
    if file.kind == "parquet":
        return True
    with opened(file) as (reader, _):
        return any(line.decode("utf-8-sig", "replace").strip() for line in reader)
