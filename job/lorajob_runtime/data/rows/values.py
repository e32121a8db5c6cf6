"""Values of a row: text, and what may have been written as JSON text."""

from __future__ import annotations

from lorajob_runtime.contract.text import kind
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.json_values import value_of


def parsed(value: object, what: str) -> object:
    """A value that may have been written as JSON text. Raises RowError when the text is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        found = value_of(value)
    except RecursionError as error:
        raise RowError(f"{what} is text with values nested too deeply") from error
    except ValueError as error:
        looks = " but a Python literal: write it with json.dumps" if _is_literal(value) else ""
        raise RowError(f"{what} is text that is not JSON{looks}") from error
    if isinstance(found, RowError):
        raise RowError(f"{what} {found.reason}")
    return found


def as_text(value: object, what: str) -> str:
    """Text of a value: null is empty, a number is written out. Raises RowError for anything else."""
    if value is None or value != value:  # NaN stands for null in tables
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RowError(f"{what} is {kind(value)}: it must be text")


def _is_literal(text: str) -> bool:
    return text.lstrip().startswith(("[{'", "{'", "[['"))
