"""Rows of a JSON file, one at a time, however long the file or its only line is. Standard library only.

A file is a list of rows, one row, or one row a line, under any of its names. Its beginning tells which, but for a first
line that is a whole list: whether that is all of the file, or the first of several rows that are lists, its end tells.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.text import kind
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.files import ROW_MAX, DataPath, FileError, not_utf8, too_long
from lorajob_runtime.data.rows.json_errors import not_json
from lorajob_runtime.data.rows.json_values import JsonDecoder

Layout = Literal["list", "lines", "one"]
"""A list of rows, a row a line, or all of it one row."""

_CHUNK = _BEGINNING = 1 << 16
_BLANK = re.compile(r"[ \t\n\r]*")
_OPEN_TAIL = 16
"""Characters at the end of a text within which a fault may be that the text goes on."""


class OtherLayout(Exception):  # noqa: N818 it is no fault
    """The end of the file shows that it is laid out in another way than its beginning said."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.layout = layout


def is_turn(value: object) -> bool:
    """Whether a value is one turn of a conversation, by its keys."""
    return isinstance(value, dict) and (value.keys() >= {"from", "value"} or value.keys() >= {"role", "content"})


def layout_of(file: DataPath, reader: io.BufferedReader[Any]) -> Layout:
    """How a file is laid out, as far as its beginning tells."""
    begin = b""
    while not begin.strip():
        # a list on one line may be as long as the file
        begin = reader.readline(_BEGINNING)
        if not begin:
            return "lines"
        begin = begin.removeprefix(codecs.BOM_UTF8)
    begin = begin.lstrip()
    if begin.startswith(b"["):
        return "list"
    if not begin.startswith(b"{"):
        return "lines"
    if not begin.endswith(b"\n"):
        begin += reader.readline(ROW_MAX)
    try:
        JsonDecoder().value(begin.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        # an object over several lines; in a file of lines only one that looks like it, so that a fault has its line
        return "one" if file.ending == ".json" or begin.strip() == b"{" else "lines"
    return "lines"


def rows(file: DataPath, reader: io.BufferedReader[Any], layout: Layout) -> Iterator[object]:
    """The rows of a file laid out like that; a RowError stands for one that cannot be used.

    Raises DataError, and at the end OtherLayout when it is laid out in another way.
    """
    if layout == "list":
        return _of_list(file, reader)
    return _of_lines(file, reader) if layout == "lines" else _whole(file, reader)


def _of_lines(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[object]:
    decoder, count, row = JsonDecoder(), 0, None
    for number, line in enumerate(iter(lambda: reader.readline(ROW_MAX + 1), b""), start=1):
        if len(line) > ROW_MAX:
            raise too_long(file, number)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise not_utf8(file) from error
        if not text.strip():
            continue
        try:
            row = decoder.value(text)
        except (ValueError, RecursionError) as error:
            raise not_json(file, error, line=number) from error
        count += 1
        yield row
    if count == 1 and not isinstance(row, dict | list | RowError):
        raise FileError(f"{file} holds nothing but {kind(row)}: it must hold rows, each an object")


def _whole(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[object]:
    content = reader.read(ROW_MAX + 1)
    if len(content) > ROW_MAX:
        raise too_long(file, 1)
    try:
        yield JsonDecoder().value(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except (ValueError, RecursionError) as error:
        raise not_json(file, error) from error


def _of_list(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[object]:
    window = _Window(file, reader)
    window.expect("[")
    are_turns, count = True, 0
    if window.next() != "]":
        while True:
            row = window.value()
            are_turns = are_turns and is_turn(row)
            count += 1
            yield row
            if window.next() != ",":
                break
            window.expect(",")
    window.expect("]", else_said="Expecting ',' delimiter")
    is_line = window.line == window.first_line
    if not window.next():
        if are_turns and count:
            # a file that is one conversation, its turns at the top
            raise OtherLayout("one")
        return
    if is_line and window.line > window.first_line:
        raise OtherLayout("lines")
    raise window.fault("Extra data")


class _Window:
    """A piece of a file's text that begins at what is read next. It grows as a value needs it to."""

    def __init__(self, file: DataPath, reader: io.BufferedReader[Any]) -> None:
        self._file = file
        self._reader = reader
        self._decoder = JsonDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._is_whole = False
        # of the text's first character, from 1 and 0
        self._line, self._column = 1, 0
        self.first_line = 0

    @property
    def line(self) -> int:
        """The line of what is read next, from 1."""
        return self._line + self._text.count("\n", 0, self._at)

    def next(self) -> str:
        """The next character that is not blank, or none at the end."""
        if self._at < len(self._text) and not self._text[self._at].isspace():
            return self._text[self._at]
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank is not None else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def expect(self, character: str, *, else_said: str = "Expecting value") -> None:
        """Passes over the next character. Raises DataError when it is another."""
        if self.next() != character:
            raise self.fault(else_said)
        self.first_line = self.first_line or self.line
        self._at += 1

    def value(self) -> object:
        """The next value, or a RowError. Raises DataError."""
        self.next()
        while True:
            try:
                value, end = self._decoder.value_at(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_whole or not self._may_go_on(error):
                    raise not_json(self._file, error, line=self._line, column=self._column) from error
            except (ValueError, RecursionError) as error:
                raise not_json(self._file, error, line=self.line) from error
            else:
                # a number at the end may go on: 3, then 3., then 3.5
                if self._is_whole or self._text[end : end + 3].strip(".eE+-"):
                    self._at = end
                    return value
            self._grow()

    def fault(self, said: str) -> DataError:
        """The error for what is read next."""
        error = json.JSONDecodeError(said, self._text, self._at)
        return not_json(self._file, error, line=self._line, column=self._column)

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        return error.pos >= len(self._text) - _OPEN_TAIL or error.msg.startswith("Unterminated string")

    def _grow(self) -> bool:
        """Reads on, twice as much each time that one value needs more; whether there was anything left."""
        read = self._text[: self._at]
        lines = read.count("\n")
        self._line += lines
        self._column = len(read) - read.rindex("\n") - 1 if lines else self._column + len(read)
        kept = self._text[self._at :]
        if len(kept) > ROW_MAX:
            raise too_long(self._file, self._line)
        chunk = self._reader.read(max(_CHUNK, len(kept)))
        try:
            more = self._utf8.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise not_utf8(self._file) from error
        self._text, self._at, self._is_whole = kept + more, 0, not chunk
        return bool(chunk)
