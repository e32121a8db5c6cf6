"""What rows of no known form are nearest to, so that the refusal says what to write in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.text import key_list, kind, quoted
from lorajob_runtime.data.rows import column_roles
from lorajob_runtime.data.rows.column_roles import TURN_COLUMNS
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.json_rows import is_turn
from lorajob_runtime.data.rows.turns import pair_keys, turn_list

_NAME_COLUMNS = "name columns as in --columns input=COLUMN,output=COLUMN"
_AS_TURNS = (
    'write a conversation as {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
)
_AS_ROWS = "write a list of rows, as to_json(orient='records') of pandas does"
_TOP = "write the list alone into the file, without what stands around it"
_SPEAKERS = (
    re.compile(r"^\W*(?:user|human|question)\W*:", re.IGNORECASE | re.MULTILINE),
    re.compile(r"^\W*(?:assistant|gpt|bot|ai|answer)\W*:", re.IGNORECASE | re.MULTILINE),
)
_OTHER_SEPARATORS = "|^~"


def no_form(first: object, names: Mapping[str, str], *, is_alone: bool, mapped: Mapping[str, str]) -> DataError:
    """The error for a file of which no row has a known form.

    `names` maps a name in lower case to its column; `is_alone`: the file has no other row, so that it may be an object
    around all of them. `mapped` is data.columns.
    """
    why, hint = _with_mapped(first, mapped) if mapped else _why(first, names, is_alone)
    return DataError(
        f"no row has a known form: {first_row(first)}{f'; {why}' if why else ''}; the forms are alpaca (instruction, "
        "input, output), qa (input, output, or question, answer and the like), sharegpt (conversations), messages and "
        "text; map other names with data.columns",
        hint=hint,
    )


def refuse_columns(row: object, needed: list[str]) -> None:
    """Raises DataError for a file that is one object with a column of values under each of the keys that are needed."""
    if not isinstance(row, dict) or not all(_is_column(row.get(name)) for name in needed):
        return
    raise DataError(f"the file is one object with a whole column under each key ({key_list(row)})", hint=_AS_ROWS)


def first_row(row: object) -> str:
    """What the first row of a file is, in a few words."""
    if isinstance(row, dict):
        return f"the first row has the keys {key_list(row)}"
    return f"the first row is {kind(row)}"


def _is_column(value: object) -> bool:
    if isinstance(value, dict):
        return list(value) == [str(number) for number in range(len(value))] and len(value) > 0
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, str | int | float) for item in value)


def _why(first: object, names: Mapping[str, str], is_alone: bool) -> tuple[str, str]:
    """Why the first row has no form, where it is nearly one, and what to do."""
    if isinstance(first, str):
        return "", 'to train texts whole write each as {"text": "…"}'
    if not isinstance(first, dict):
        return "", _AS_TURNS if isinstance(first, list) else _NAME_COLUMNS
    column = next((name for name in TURN_COLUMNS if name in first), None)
    if column is not None:
        return _turns_at_fault(column, first[column]), _AS_TURNS
    if first.keys() >= {"role", "content"} or first.keys() >= {"from", "value"}:
        return "each row is a single turn: a row must hold a whole conversation, its turns in a list", _AS_TURNS
    if "input_ids" in first:
        return "input_ids are tokens of some tokenizer, and rows must be text", "give the texts"
    if is_alone and (first.keys() >= {"columns", "data"} or _holds_rows(first)):
        return "the file is one object, and its rows are inside", _AS_ROWS
    for name, value in first.items():
        if found := _conversation(str(name), value):
            return found
    if odd := column_roles.looks_like(names):
        return odd, _NAME_COLUMNS
    return _lists_inside(first, is_alone) or _columns_in_one(first) or ("", _NAME_COLUMNS)


def _with_mapped(first: object, mapped: Mapping[str, str]) -> tuple[str, str]:
    """Why columns that the user named make no form."""
    column = mapped.get("messages")
    if column is not None and isinstance(first, dict) and column in first:
        return _turns_at_fault(column, first[column]), _AS_TURNS
    said = ", ".join(f"{role}={column}" for role, column in mapped.items())
    return f"none has all that it needs with data.columns {said}", _NAME_COLUMNS


def _turns_at_fault(column: str, turns: object) -> str:
    try:
        turns = turn_list(turns)
    except RowError as error:
        return error.reason.replace("the conversation", column)
    head = next((turn for turn in turns if turn), None)
    if not isinstance(head, dict):
        return f"{column} is empty" if head is None else f"{column} has {kind(head)} for a turn"
    if pair_keys(head) is None:
        needed = "it needs from and value, or role and content"
        return f"the first turn in {column} has the keys {key_list(head)}: {needed}"
    return ""


def _conversation(name: str, value: Any) -> tuple[str, str] | None:
    """A conversation under another name than those of the forms, or written in another way."""
    if isinstance(value, str):
        if all(speaker.search(value) for speaker in _SPEAKERS):
            return (
                f"{name} is a conversation written as one text",
                f"{_AS_TURNS}; or train it whole: --columns text={name}",
            )
        return None
    if isinstance(value, dict):
        inner = next((column for column in TURN_COLUMNS if column in value), None)
        return (f"{inner} is inside {name}, and must be a key of the row itself", _AS_TURNS) if inner else None
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) and "parts" in item for item in value):
        return f"{name} has turns of role and parts, as Gemini has them, and not of role and content", _AS_TURNS
    if is_turn(value[0]) and len(value) > 1:
        return f"{name} has the turns of a conversation", f"say so: --columns messages={name}"
    if not all(isinstance(item, dict) for item in value):
        return None
    if value[0].keys() >= {"label", "text"}:
        return f"{name} has parts of label and text, as axolotl's input_output has them, and no turns", _AS_TURNS
    if value[0].keys() & {"role", "from"} and not is_turn(value[0]):
        return f"{name} has turns of {key_list(value[0])}, and not of role and content", _AS_TURNS
    return None


def _holds_rows(only: Mapping[str, Any]) -> bool:
    """Whether each value of the one object in a file is a row, or whether its keys are numbers of rows."""
    if len(only) > 1 and all(str(name).isdecimal() for name in only):
        return True
    rows = list(only.values())
    return len(rows) > 1 and all(isinstance(row, dict) and row and row.keys() == rows[0].keys() for row in rows)


def _lists_inside(first: Mapping[str, Any], is_alone: bool) -> tuple[str, str] | None:
    """What a list is that the first row has under some name: all rows of the file, or a conversation of bare texts."""
    lists = {name: value for name, value in first.items() if isinstance(value, list) and len(value) > 0}
    rows = {name: len(value) for name, value in lists.items() if all(isinstance(item, dict) for item in value)}
    if rows:
        longest = max(rows, key=lambda name: rows[name])
        if not is_alone:
            return f"{longest} is a list of objects, not a conversation", _AS_TURNS
        return f"{longest} is a list of objects: if these are the rows, the file must be that list", _TOP
    texts = next((name for name, value in lists.items() if all(isinstance(item, str) for item in value)), None)
    if texts is None:
        return None
    return f"{texts} is a list of texts, and the turns of a conversation must say whose they are", _AS_TURNS


def _columns_in_one(first: Mapping[str, Any]) -> tuple[str, str] | None:
    name = next(iter(first), "")
    if len(first) == 1 and any(separator in name for separator in _OTHER_SEPARATORS):
        return f"{quoted(name)} may be several columns", "separate columns by commas, semicolons or tabs"
    return None
