"""The error for text that is not JSON: its place in the file, what is wrong there, and what to do about it.

Standard library only.
"""

from __future__ import annotations

import json
import re

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.rows.files import DataPath, FileError


def not_json(file: DataPath, error: Exception, *, line: int = 1, column: int = 0) -> DataError:
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
    """What to do about text that is not JSON, where the text itself tells; else a general hint."""
    before, behind = error.doc[: error.pos].rstrip(), error.doc[error.pos : error.pos + 20].lstrip()
    if behind.startswith("\0"):
        return "there are NUL bytes, as in a file that was not written completely: write it again"
    if behind.startswith(("//", "/*", "#")):
        return "JSON has no comments: take them out"
    if "trailing comma" in error.msg or (behind.startswith(("]", "}")) and (not before or before.endswith(","))):
        return "remove the comma behind the last element of the list or object"
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
