"""Rows of a table written as text, separated by commas, semicolons or tabs. Standard library only.

Every value stays the text that it is: `007` is no number, and an answer `NA` is no missing value. What does not fit its
header is refused with its line, since all values behind it would be in wrong columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lorajob_runtime.contract.text import plural, truncate
from lorajob_runtime.data.rows.files import ROW_MAX, DataPath, FileError, not_utf8, too_long

_VALUE_MAX = 2**31 - 1
"""The most that `csv` can be told everywhere; 128 KiB without, and an answer may be longer."""

_SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t", ",", ";")}
_DECLARED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_LOOKED_AT, _LOOKED_AT_LENGTH = 100, 1 << 20
"""Lines that the separator is found from, and about how many characters of them."""


def rows(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[dict[str, str]]:
    """The rows of a table, column name -> text. Raises DataError."""
    csv.field_size_limit(_VALUE_MAX)
    lines = _Lines(file, reader)
    records = _records(file, lines, _separator(file, lines))
    start, header = next(records, (0, None))
    if header is None:
        return
    columns = _Columns(file, start, header)
    for start, record in records:
        yield columns.row(start, record)


class _Lines:
    """The lines of a text with their ends, each kind of which counts, and how far the record has come that is read."""

    def __init__(self, file: DataPath, reader: io.BufferedReader[Any]) -> None:
        self._file = file
        self._text = io.TextIOWrapper(reader, encoding="utf-8-sig", newline="")
        self._ahead: list[str] = []
        self._number = 0
        self.record = ""
        """What was read of the record, no more than its last line where that is long."""
        self._length = 0
        self.start = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.pop(0) if self._ahead else self._read()
        if not line:
            raise StopIteration
        self._number += 1
        self._length += len(line)
        if self._length > ROW_MAX:
            raise too_long(self._file, self.start)
        self.record = line
        return line

    def begin(self) -> None:
        """Notes that what is read next begins a record."""
        self.start, self._length, self.record = self._number + 1, 0, ""

    def look(self) -> list[str]:
        """The first lines, which stay to be read."""
        while len(self._ahead) < _LOOKED_AT and sum(map(len, self._ahead)) < _LOOKED_AT_LENGTH:
            line = self._read()
            if not line:
                break
            self._ahead.append(line)
        return self._ahead

    def skip(self, count: int) -> None:
        """Leaves lines out that were looked at."""
        self._number += count
        del self._ahead[:count]

    def _read(self) -> str:
        try:
            return self._text.readline(ROW_MAX + 1)
        except UnicodeDecodeError as error:
            raise not_utf8(self._file) from error


def _separator(file: DataPath, lines: _Lines) -> str:
    """What stands between values: as a line `sep=;` says, which is passed over, else what fits the first lines."""
    looked_at = lines.look()
    blank = next((place for place, line in enumerate(looked_at) if line.strip()), 0)
    declared = _DECLARED.fullmatch(looked_at[blank]) if looked_at else None
    if declared is not None:
        lines.skip(blank + 1)
        return declared[1]
    candidates = _SEPARATORS[file.ending]
    widths = {separator: _widths(looked_at, separator) for separator in candidates}
    tables = [separator for separator in candidates if widths[separator] and widths[separator][0] > 1]
    fitting = (separator for separator in tables if len(set(widths[separator])) == 1)
    return next(fitting, (tables or candidates)[0])


def _widths(lines: Sequence[str], separator: str) -> list[int]:
    """How many values each of the first records has, as far as they can be read."""
    widths: list[int] = []
    try:
        for record in csv.reader(lines, delimiter=separator, strict=True):
            widths += [len(record)] if record else []
    except csv.Error:
        # one that goes on behind the lines that are looked at
        return widths
    return widths


def _records(file: DataPath, lines: _Lines, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is no blank line, with the number of its first line, from 1."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.begin()
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise FileError(f"{file} line {lines.start} cannot be read as csv: {_reason(error, lines)}") from error
        if record is None:
            return
        # a line of blanks; one of separators is a row of nothing
        if record and lines.record.strip(" \r\n"):
            yield lines.start, record


def _reason(error: csv.Error, lines: _Lines) -> str:
    if "unexpected end" in str(error):
        return "a quote opens a value there and is never closed"
    if "expected after" not in str(error):
        return truncate(error, 160)
    if '\\"' in lines.record:
        return 'a quote inside a quoted value is written "", and not with a backslash as it is there'
    return 'there is text behind the quote that closes a value; a quote inside a quoted value is written ""'


class _Columns:
    """The header of a table, and what a row must be to fit it."""

    def __init__(self, file: DataPath, line: int, header: Sequence[str]) -> None:
        self._file = file
        self._width = len(header)
        self._named = [(place, name) for place, name in enumerate(header) if name.strip()]
        self._unnamed = [place for place, name in enumerate(header) if not name.strip()]
        names = [name for _, name in self._named]
        for name in names:
            if name != name.strip():
                raise FileError(f"{file} line {line} names a column {name!r}: write it without the spaces around it")
            if names.count(name) > 1:
                raise FileError(f"{file} has the column {name!r} twice: give one of them another name")

    def row(self, line: int, record: Sequence[str]) -> dict[str, str]:
        """The values of the record that begins on a line, by column. Raises DataError when they do not fit."""
        if len(record) != self._width:
            raise FileError(
                f"{self._file} line {line} has {plural(len(record), 'value')}, the header {self._width}: "
                "a value with a separator, a quote or a line break in it must be in quotes"
            )
        for place in self._unnamed:
            self._refuse_nameless(line, place, record[place])
        return {name: record[place] for place, name in self._named}

    def _refuse_nameless(self, line: int, place: int, value: str) -> None:
        """A blank column, as a separator at the end of every line makes one, is none, nor are numbers of rows."""
        is_row_number = place == 0 and value.isdecimal()
        if value.strip() and not is_row_number:
            raise FileError(
                f"{self._file} line {line} has {truncate(value, 40)!r} in column {place + 1}, "
                "which has no name: name it",
                hint="if it is the index of pandas, leave it out with to_csv(index=False)" if place == 0 else "",
            )
