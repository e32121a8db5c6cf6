"""How values of a dataset are named in messages: short, on one line, and harmless to a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
_KINDS[bytes] = "binary data"
_KEYS_SHOWN = 12
_ESCAPED = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "␡"}
_ESCAPED |= dict.fromkeys((*range(0x80, 0xA0), 0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068), "�")


def kind(value: object) -> str:
    """A value's type as a person calls it."""
    if value is None:
        return "null"
    known = next((_KINDS[base] for base in type(value).__mro__ if base in _KINDS), None)
    return known or f"a {type(value).__name__}"


def harmless(text: str) -> str:
    """Text with what could steer a terminal made visible: escapes, other control characters, turned direction."""
    return unicode(text.translate(_ESCAPED))


def unicode(text: str) -> str:
    """Text with a question mark for each half of a character, which JSON can hold and no file in UTF-8."""
    return text.encode("utf-8", "replace").decode()


def brief(value: object, limit: int = 60) -> str:
    """A value as one harmless line of at most `limit` characters."""
    text = " ".join(harmless(str(value)[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quoted(name: object, limit: int = 40) -> str:
    """A name between quotes, in which a blank at either end can be seen, as can what does not print."""
    text = str(name)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def counted(number: int, thing: str) -> str:
    """1, row -> 1 row; 1200, row -> 1,200 rows."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def keys_of(row: Mapping[Any, object]) -> str:
    """The keys of a row, not more of them than can be read."""
    shown = [quoted(key) for key in list(row)[:_KEYS_SHOWN]]
    more = [f"{len(row) - _KEYS_SHOWN} more"] if len(row) > _KEYS_SHOWN else []
    return ", ".join(shown + more) or "none"
