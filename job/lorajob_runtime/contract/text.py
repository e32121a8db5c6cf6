"""Values as a person reads them: numbers, sizes, durations, names, and text from anywhere made safe for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TYPES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
_TYPES[bytes] = "binary data"
_KEYS_SHOWN = 12
_ERROR_LENGTH = 200

_BIDIRECTIONAL = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks, embeddings, overrides and isolates, which turn a line's direction. Joiners of emoji and Persian stay."""
_ESCAPED = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "␡"}
_ESCAPED |= dict.fromkeys((*range(0x80, 0xA0), *_BIDIRECTIONAL), "�")

_DURATION = re.compile(r"([1-9]\d*)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def escape_controls(text: str) -> str:
    """Text with what could steer a terminal made visible: escapes, other control characters, turned direction."""
    return replace_surrogates(text.translate(_ESCAPED))


def replace_surrogates(text: str) -> str:
    """Text with a question mark for each half of a character, which JSON can hold and no file in UTF-8."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """Text on one line that cannot steer a terminal, whatever a model, a dataset or a server put into it."""
    return escape_controls(" ".join(text.split()))


def truncate(value: object, limit: int = 60) -> str:
    """A value as one line of at most `limit` characters that cannot steer a terminal."""
    whole = str(value)
    beginning = whole[: 4 * limit]
    text = one_line(beginning)
    is_whole = len(text) <= limit and len(beginning) == len(whole)
    return text if is_whole else text[: limit - 1] + "…"


def error_line(error: BaseException, limit: int = _ERROR_LENGTH, *, with_class: bool = False) -> str:
    """The first line of an error's text, or its class where it has none: libraries add pages of detail."""
    text, name = str(error).strip().split("\n", 1)[0], type(error).__name__
    return truncate(f"{name}: {text}" if text and with_class else text or name, limit)


def whole_error(error: BaseException, limit: int = 300) -> str:
    """An error's class and all lines of its text on one: where the first alone does not say what is wrong."""
    return truncate(f"{type(error).__name__}: {error}", limit)


def encodable(text: str, encoding: str | None) -> str:
    """Text that a stream of this encoding can take; what it cannot show becomes ?."""
    name = encoding or "ascii"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.replace("…", "...").encode(name, "replace").decode(name)
    return text


def kind(value: object) -> str:
    """A value's type as a person calls it."""
    if value is None:
        return "null"
    known = next((_TYPES[base] for base in type(value).__mro__ if base in _TYPES), None)
    return known or f"a {type(value).__name__}"


def quoted(name: object, limit: int = 40) -> str:
    """A name between quotes, in which a blank at either end can be seen, as can what does not print."""
    text = str(name)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def key_list(row: Mapping[Any, object]) -> str:
    """The keys of a row, not more of them than can be read."""
    shown = [quoted(key) for key in list(row)[:_KEYS_SHOWN]]
    more = [f"{len(row) - _KEYS_SHOWN} more"] if len(row) > _KEYS_SHOWN else []
    return ", ".join(shown + more) or "none"


def plural(number: float, thing: str, things: str | None = None) -> str:
    """1, row -> 1 row; 1200, row -> 1,200 rows; 2, retry, retries -> 2 retries."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {thing if number == 1 else things or thing + 's'}"


def short_count(number: float) -> str:
    """950 -> 950, 12345 -> 12.3k, 4884480 -> 4.88M."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (float("inf"), 1e9, "B")):
        if abs(number) < limit * 0.9995:
            value = number / divisor
            return f"{value:.0f}" if not unit else f"{value:.3g}{unit}"
    return f"{number:.3g}"


def parameter_count(number: int) -> str:
    """134515008 -> 135M, 8190735360 -> 8.2B, as models are named by their size."""
    for unit, scale in (("B", 10**9), ("M", 10**6)):
        if number >= scale:
            value = number / scale
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return str(number)


def decimal_size(size_bytes: float) -> str:
    """3500 -> 4 kB, 2500000 -> 2.5 MB, 269060552 -> 269 MB, 16381470720 -> 16.4 GB: as hubs and disks show sizes."""
    value = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            has_fraction = unit == "GB" or (unit == "MB" and value < 9.95)
            return f"{value:.1f} {unit}" if has_fraction else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def binary_size(size_bytes: float) -> str:
    """1536 -> 1.5 KiB: as memory is measured, and what has limits in powers of two."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def gibibytes(size_bytes: int) -> str:
    """85899345920 -> 80.0 GiB, the unit in which GPUs' memory is given whatever it is called."""
    return f"{size_bytes / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """42 -> 42s, 750 -> 12m 30s, 7500 -> 2h 05m, 200000 -> 2d 07h."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}h"
    if hours:
        return f"{hours}h {minute:02d}m"
    return f"{minutes}m {second:02d}s" if minutes else f"{second}s"


def duration_seconds(text: str) -> int | None:
    """90m -> 5400: a duration as a spec and a platform file write it; None for what is not one."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _SECONDS[match[2]] if match else None
