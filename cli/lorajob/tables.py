"""Forms of output that every reading command shares: aligned tables for a person, JSON and YAML for programs, names."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from lorajob_runtime.contract.text import encodable

NOTHING = "-"
"""A cell for which there is no value."""

_GAP = "   "


def document(value: dict[str, Any], form: str) -> str:
    """A mapping as JSON or YAML, with a newline at its end."""
    if form == "yaml":
        from lorajob.spec import spec_file  # the YAML parser is loaded only when YAML is asked for

        return spec_file.dumps(value)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def json_line(value: dict[str, Any]) -> str:
    """A mapping as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Lines of a table whose columns are as wide as their cells; those named in `right` are set to the right."""
    cells = [list(heads), *([cell or NOTHING for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = []
        for head, cell, column in zip(heads, row, widths, strict=True):
            space = " " * (column - width(cell))
            padded.append(space + cell if head in right else cell + space)
        lines.append(_GAP.join(padded).rstrip())
    return lines


def fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of `Title:  value`, aligned; pairs without a value are left out."""
    shown = [(title, value) for title, value in pairs if value]
    column = max((len(title) for title, _ in shown), default=0) + 1
    return [f"{title + ':':<{column}}  {value}" for title, value in shown]


def width(text: str) -> int:
    """Columns that a text takes on a terminal: Chinese letters take two each, accents and joiners none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(text: str, columns: int) -> str:
    """A text that takes at most so many columns; what is cut off shows as …"""
    if width(text) <= columns:
        return text
    kept, taken = [], 0
    for char in text:
        taken += width(char)
        if taken > columns - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def shortened(text: str, columns: int) -> str:
    """A text that takes at most so many columns; one that is too long loses its middle: the cause often comes last."""
    if width(text) <= columns:
        return text
    begin = clip(text, columns // 3)
    room, kept = columns - width(begin), 0
    end = len(text)
    while end and kept + width(text[end - 1]) <= room:
        end -= 1
        kept += width(text[end])
    return begin + text[end:]


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, as kubectl shows it: 45s, 3m20s, 25m, 5h30m, 30h, 6d2h, 40d."""
    if since is None:
        return ""
    seconds = max(0, int((now - since).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def show(lines: Sequence[str]) -> None:
    """Prints lines on stdout, also where it can't take every letter."""
    click.echo(encodable("\n".join(lines), sys.stdout.encoding))
