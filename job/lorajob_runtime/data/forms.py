"""Dataset forms: which one a file has, said in one line, and how its rows become conversations or texts.

alpaca      instruction, input, output[, system, history]      user turn = instruction + input, nothing between
qa          input, output[, system]
sharegpt    conversations of from/value[, tools, system]       or a row that is such a list itself
messages    messages of role/content[, tools]
text        text                                               trained whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.data.conversation import Conversation, Message, RowError, Text
from lorajob_runtime.data.read import is_turn
from lorajob_runtime.data.turns import as_text, conversation, finished, parsed, tool_list
from lorajob_runtime.data.wording import keys_of, kind
from lorajob_runtime.exits import DataError
from lorajob_runtime.spec import COLUMN_ROLES, DataSpec

LOOKED_AT = 200
"""Rows that the form is detected from."""

_TURN_COLUMNS = ("messages", "conversations", "conversation")
_NEEDS: dict[str, tuple[str, ...]] = {
    "sharegpt": ("messages",),
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "qa": ("input", "output"),
    "text": ("text",),
}
"""Form -> the roles without which a row is not of it, the most telling form first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How this file's rows are read. `columns` maps a role to the column that has it; `verdict` says it to a person."""

    name: str
    columns: Mapping[str, str]
    system: str | None
    verdict: str

    def convert(self, row: object) -> Conversation | Text:
        """The row as a conversation or a text. Raises RowError."""
        if isinstance(row, list) and self.name in ("sharegpt", "messages"):
            return conversation(row, tools=None, system=self.system)
        if not isinstance(row, dict):
            raise RowError(f"is {kind(row)}: it must be an object with {self._needed()}")
        if not all(_has(row, self.columns, role) for role in _NEEDS[self.name]):
            raise RowError(f"has the keys {keys_of(row)}: the form {self.name} needs {self._needed()}")
        if self.name == "text":
            return self._text(row)
        if self.name in ("alpaca", "qa"):
            return self._pair(row)
        turns = row[_turn_column(row, self.columns)]
        return conversation(turns, tools=row.get("tools"), system=self._value(row, "system") or self.system)

    def _text(self, row: dict[str, Any]) -> Text:
        text = self._value(row, "text")
        if not text.strip():
            raise RowError("empty text", droppable=True)
        return Text(text)

    def _pair(self, row: dict[str, Any]) -> Conversation:
        question = self._value(row, "instruction") + self._value(row, "input")
        answer = self._value(row, "output")
        if not question.strip():
            raise RowError("empty instruction" if self.name == "alpaca" else "empty input", droppable=True)
        if not answer.strip():
            raise RowError("empty output", droppable=True)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        history = _history(row.get(self.columns["history"]) if "history" in self.columns else None)
        system = self._value(row, "system")
        spoken = ([{"role": "system", "content": system}] if system.strip() else []) + history + messages
        return finished(spoken, tools=tool_list(row.get("tools")), system=self.system)

    def _value(self, row: dict[str, Any], role: str) -> str:
        column = self.columns.get(role)
        return as_text(row.get(column) if column is not None else None, str(column))

    def _needed(self) -> str:
        if "messages" in _NEEDS[self.name]:
            return self.columns.get("messages", "conversations or messages")
        return " and ".join(self.columns[role] for role in _NEEDS[self.name])


def detect(rows: Sequence[object], data: DataSpec) -> Form:
    """The form of a file's rows: as `data.format` says, else the one that most of the first rows have.

    Raises DataError when no row has a known form, or `data.columns` names a column that no row has.
    """
    looked_at = rows[:LOOKED_AT]
    columns = _columns(data.columns)
    for role, column in data.columns.items():
        if not any(isinstance(row, dict) and column in row for row in rows):
            raise DataError(f"data.columns maps {role} to {column!r}, a column that no row has: {_keys_of(rows[0])}")
    matches = {name: sum(_matches(name, row, columns) for row in looked_at) for name in _NEEDS}
    name = data.format if data.format != "auto" else max(matches, key=lambda form: matches[form])
    if data.format == "auto" and not matches[name]:
        raise DataError(
            f"no row has a known form: {_keys_of(rows[0])}; the forms are alpaca (instruction, input, output), "
            "qa (input, output), sharegpt (conversations), messages and text; map other names with data.columns"
        )
    return Form(name=name, columns=columns, system=data.system, verdict=_verdict(name, columns, data, rows[0]))


def _columns(mapped: Mapping[str, str]) -> dict[str, str]:
    """Role -> column. A role that is not mapped has the column of its own name, unless another role took that one."""
    taken = set(mapped.values())
    return {role: role for role in COLUMN_ROLES if role != "messages" and role not in taken} | dict(mapped)


def _turn_column(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    candidates = (columns["messages"],) if "messages" in columns else _TURN_COLUMNS
    return next((column for column in candidates if column in row), "")


def _has(row: Mapping[str, Any], columns: Mapping[str, str], role: str) -> bool:
    if role == "messages":
        return bool(_turn_column(row, columns))
    return columns.get(role) in row


def _matches(name: str, row: object, columns: Mapping[str, str]) -> bool:
    if isinstance(row, list):
        return name == _turn_form(row)
    if not isinstance(row, dict) or not all(_has(row, columns, role) for role in _NEEDS[name]):
        return False
    if name in ("sharegpt", "messages"):
        return name == _turn_form(row[_turn_column(row, columns)])
    return True


def _turn_form(turns: object) -> str:
    """Which of the two forms a list of turns has; the empty string when it is none."""
    try:
        turns = parsed(turns, "")
    except RowError:
        return ""
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return ""
    if "from" in turns[0]:
        return "sharegpt"
    return "messages" if is_turn(turns[0]) or "role" in turns[0] else ""


def _history(value: object) -> list[Message]:
    """Earlier rounds of an alpaca row: a list of [question, answer] pairs. Raises RowError."""
    rounds = parsed(value, "history") if value not in (None, "") else None
    if not rounds:
        return []
    if not isinstance(rounds, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in rounds):
        raise RowError("history must be a list of [question, answer] pairs")
    return [
        {"role": role, "content": as_text(said, "history")}
        for pair in rounds
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]


def _verdict(name: str, columns: Mapping[str, str], data: DataSpec, first: object) -> str:
    how = f"as data.format says: {name}" if data.format != "auto" else f"detected as {name}"
    if isinstance(first, list):
        return f"{how}, each row a list of turns"
    if name in ("sharegpt", "messages"):
        return f"{how}, turns in {_turn_column(first, columns) if isinstance(first, dict) else 'the row'}"
    if name == "text":
        return f"{how}, {columns['text']} trained whole"
    present = [role for role in ("instruction", "input") if _in_first(first, columns, role)]
    parts = ["user = " + " + ".join(columns[role] for role in present), f"answer = {columns['output']}"]
    if _in_first(first, columns, "system"):
        parts.insert(0, f"system = {columns['system']}")
    return f"{how}, {', '.join(parts)}"


def _in_first(first: object, columns: Mapping[str, str], role: str) -> bool:
    return isinstance(first, dict) and columns.get(role) in first


def _keys_of(row: object) -> str:
    if isinstance(row, dict):
        return f"the first row has the keys {keys_of(row)}"
    return f"the first row is {kind(row)}"
