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
from lorajob_runtime.contract.text import kind, quoted
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.files import ROW_MAX, DataPath, FileError, not_utf8, too_long

Layout = Literal["list", "lines", "one"]
"""A list of rows, a row a line, or all of it one row."""

_CHUNK = _BEGINNING = 1 << 16
_BLANK = re.compile(r"[ \t\n\r]*")
_OPEN_TAIL = 16
"""Characters at the end of a text within which a fault may be that the text goes on."""


class Number(float):
    """A number that Python would write in another way than the file does. Its `str` is the file's text."""

    text: str

    def __new__(cls, text: str) -> Number:
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


class OtherLayout(Exception):  # noqa: N818 it is no fault
    """The end of the file shows that it is laid out in another way than its beginning said."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.layout = layout


def is_turn(value: object) -> bool:
    """Whether a value is one turn of a conversation, by its keys."""
    return isinstance(value, dict) and (value.keys() >= {"from", "value"} or value.keys() >= {"role", "content"})


def value_of(text: str) -> object:
    """The value of a JSON text inside a row, as a file of its own would have it; a RowError for a key twice.

    Raises ValueError, RecursionError.
    """
    return _Decoder().value(text)


def text_of(value: object) -> str:
    """A value as JSON text, its numbers as the file has them. Raises RowError for what JSON has no form for."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text_of(str(key))}: {text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text_of, value)) + "]"
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise RowError(f"has {kind(value)} in what is to be written as JSON") from error


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
        _Decoder().value(begin.decode("utf-8", "replace"))
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


class _Decoder:
    """Decodes JSON without a loss that nobody is told of."""

    def __init__(self) -> None:
        self._twice: str | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_float=_real, parse_int=_whole_number, parse_constant=_constant
        )

    def value(self, text: str) -> object:
        """The one value in a text, or a RowError. Raises ValueError, RecursionError."""
        self._twice = None
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("a byte order mark, which may only begin a file", text, 0)
        return self._said(self._decoder.decode(text))

    def value_at(self, text: str, start: int) -> tuple[object, int]:
        """The value that begins there, or a RowError, and its end. Raises ValueError, RecursionError."""
        self._twice = None
        value, end = self._decoder.raw_decode(text, start)
        return self._said(value), end

    def _said(self, value: object) -> object:
        if self._twice is None:
            return value
        return RowError(f"has the key {quoted(self._twice)} twice, with two values")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs) and self._twice is None:
            # one that is repeated loses nothing
            self._twice = next((key for key, value in pairs if made[key] != value), None)
        return made


def _real(text: str) -> float:
    value = float(text)
    return value if repr(value) == text else Number(text)


def _whole_number(text: str) -> int | float:
    # Python reads no more than 4300 digits
    return Number(text) if text == "-0" or len(text) > 4000 else int(text)


def _constant(text: str) -> float:
    """NaN, which stands for null, and the two infinities; JSON has none of them, but many writers do."""
    return float(text) if text == "NaN" else Number(text)


def _of_lines(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[object]:
    decoder, count, row = _Decoder(), 0, None
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
            raise _fault(file, error, line=number) from error
        count += 1
        yield row
    if count == 1 and not isinstance(row, dict | list | RowError):
        raise FileError(f"{file} holds nothing but {kind(row)}: it must hold rows, each an object")


def _whole(file: DataPath, reader: io.BufferedReader[Any]) -> Iterator[object]:
    content = reader.read(ROW_MAX + 1)
    if len(content) > ROW_MAX:
        raise too_long(file, 1)
    try:
        yield _Decoder().value(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except (ValueError, RecursionError) as error:
        raise _fault(file, error) from error


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
        self._decoder = _Decoder()
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
                    raise _fault(self._file, error, line=self._line, column=self._column) from error
            except (ValueError, RecursionError) as error:
                raise _fault(self._file, error, line=self.line) from error
            else:
                # a number at the end may go on: 3, then 3., then 3.5
                if self._is_whole or self._text[end : end + 3].strip(".eE+-"):
                    self._at = end
                    return value
            self._grow()

    def fault(self, said: str) -> DataError:
        """The error for what is read next."""
        error = json.JSONDecodeError(said, self._text, self._at)
        return _fault(self._file, error, line=self._line, column=self._column)

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


def _fault(file: DataPath, error: Exception, *, line: int = 1, column: int = 0) -> DataError:
    """The error for text that is no JSON. `line` is that of the text's first character, before which are `column`."""
    if not isinstance(error, json.JSONDecodeError):
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return FileError(f"{file} line {line} is not JSON that can be read: {reason}")
    place = error.colno + (column if error.lineno == 1 else 0)
    said = _SAID.get(error.msg.strip(" :"), error.msg.strip(" :"))
    ends = "" if error.pos < len(error.doc.rstrip()) else ", where the text ends"
    at = line + error.lineno - 1
    hint = _hint(error, is_first=at == 1 and place == 1)
    return FileError(f"{file} line {at} is not JSON: {said}, at column {place}{ends}", hint=hint)


def _hint(error: json.JSONDecodeError, *, is_first: bool) -> str:
    """What to do about text that is no JSON, where what stands there tells."""
    before, behind = error.doc[: error.pos].rstrip(), error.doc[error.pos : error.pos + 20].lstrip()
    if behind.startswith("\0"):
        return "NUL bytes stand there, as in a file that was not written to its end: write it anew"
    if behind.startswith(("//", "/*", "#")):
        return "JSON has no comments: take them out"
    if "trailing comma" in error.msg or (behind.startswith(("]", "}")) and (not before or before.endswith(","))):
        return "no comma stands behind the last of a list or an object"
    if error.msg == "Extra data":
        return "write a row a line, with nothing between and behind them, or one list with commas between the rows"
    if before.endswith(("{", "[", ":", ",")) and _NO_JSON.match(behind):
        return "it is written as Python or JavaScript has it: write it with json.dumps or JSON.stringify"
    if is_first:
        return "a file of this name holds a list of rows or a row a line, each an object between { and }"
    return "correct it there"


_NO_JSON = re.compile(r"'|None\b|True\b|False\b|undefined\b|\w+\s*:")
_SAID = {
    "Invalid control character at": r"a line break, tab or other control character in a string, written \n, \t or \u",
    "Unterminated string starting at": "Unterminated string",
    "Extra data": "Extra data behind the value",
}
