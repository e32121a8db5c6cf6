"""Values of JSON text decoded without loss: numbers keep how they are written, and a key given twice is a RowError.

Standard library only.
"""

from __future__ import annotations

import json
from typing import Any

from lorajob_runtime.contract.text import kind, quoted
from lorajob_runtime.data.rows.conversation import RowError


class Number(float):
    """A number that Python would write in another way than the file does. Its `str` is the file's text."""

    text: str

    def __new__(cls, text: str) -> Number:
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def value_of(text: str) -> object:
    """The value of a JSON text inside a row, as a file of its own would have it; a RowError for a key twice.

    Raises ValueError, RecursionError.
    """
    return JsonDecoder().value(text)


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


class JsonDecoder:
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
