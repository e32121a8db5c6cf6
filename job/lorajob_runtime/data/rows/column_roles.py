"""Which columns of a file can be read as which form: every way, the most telling first, and the one that is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import COLUMN_ROLES
from lorajob_runtime.contract.text import quoted
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.turns import pair_keys, turn_list
from lorajob_runtime.data.rows.unused import has_something

TURN_COLUMNS = ("messages", "conversations", "conversation")
THOUGHT_COLUMNS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought", "complex_cot")
SYSTEM_COLUMNS = ("system", "system_prompt")
NEEDS: dict[str, tuple[str, ...]] = {
    "sharegpt": ("messages",),
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "qa": ("input", "output"),
    "text": ("text",),
}
"""Form -> the roles without which a row is not of it, the most telling form first."""
TAKES: dict[str, frozenset[str]] = {
    "sharegpt": frozenset(("messages", "system", "tools")),
    "messages": frozenset(("messages", "system", "tools")),
    "alpaca": frozenset(("instruction", "input", "output", "system", "history", "tools", "thought")),
    "qa": frozenset(("instruction", "input", "output", "system", "history", "tools", "thought")),
    "text": frozenset(("text",)),
}
"""Form -> all roles that it has a use for."""
_OWN_NAMES = tuple(role for role in COLUMN_ROLES if role not in ("messages", "tools", "thought"))
"""Roles whose column has the role's name where data.columns does not say otherwise."""
_PAIR_ROLES = frozenset(("instruction", "input", "output"))
_ROLES = NEEDS | {"alpaca": ("instruction", "input", "output")}

_INSTRUCTED = (
    ("prompt", ("query",), "response"),
    ("instruction", ("input", "context", ""), "response"),
    ("instruction", ("input", "context", ""), "answer"),
    ("instruction", ("input", "context", ""), "completion"),
)
"""Other names for instruction, input and output; the first of the middle ones that is there, which may be none."""
_ASKED = (
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("query", "answers"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("problem", "solution"),
    ("input", "target"),
    ("input", "response"),
    ("input", "answer"),
    ("human", "assistant"),
    ("user", "assistant"),
)
"""Other names for input and output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One way to read rows. `columns` maps a role to its column; `is_named` where the names are the form's own."""

    form: str
    columns: Mapping[str, str]
    is_named: bool = True

    def fits(self, row: object) -> bool:
        """Whether a row has what this reading needs."""
        if isinstance(row, list):
            return self.form == turn_form(row)
        if not isinstance(row, dict) or not all(has(row, self.columns, role) for role in NEEDS[self.form]):
            return False
        if self.form in ("sharegpt", "messages"):
            return self.form == turn_form(row[turn_column(row, self.columns)])
        return True

    def carried(self) -> dict[str, str]:
        """The roles that this form has for what is said, and their columns."""
        return {role: self.columns[role] for role in _ROLES[self.form] if role in self.columns}

    def shown(self) -> str:
        """The reading in a few words, to choose it by."""
        return " ".join([self.form, *(f"{role}={column}" for role, column in self.carried().items())])


def possible(names: Mapping[str, str], mapped: Mapping[str, str]) -> list[Reading]:
    """Every reading of rows with these columns, the most telling first.

    `names` maps a name in lower case to the column, `mapped` is data.columns, which replaces all guessing of its roles.
    """
    taken = set(mapped.values())

    def column(role: str) -> str:
        return role if role in taken else names.get(role, role)

    own = {role: column(role) for role in _OWN_NAMES if column(role) not in taken}
    own |= _first("system", SYSTEM_COLUMNS, names) if own.get("system") not in names.values() else {}
    own |= _first("thought", THOUGHT_COLUMNS, names) | dict(mapped)
    readings = [Reading(form=form, columns=_of_form(form, own, names)) for form in NEEDS]
    guesses = _guesses({name: found for name, found in names.items() if found not in taken}, mapped, own)
    if mapped.keys() & _PAIR_ROLES and not mapped.keys() & {"messages", "text"}:
        return [reading for reading in readings if reading.form in ("alpaca", "qa")] + guesses
    return readings[:-1] + guesses + readings[-1:]


def _guesses(names: Mapping[str, str], mapped: Mapping[str, str], own: Mapping[str, str]) -> list[Reading]:
    """Questions with answers under names that are not a form's own; what the user named stays as it is."""
    shared = {role: found for role, found in own.items() if role in ("system", "history", "thought", "tools")}
    found: list[Reading] = []

    def add(form: str, **roles: str | None) -> None:
        columns = shared | {role: column for role, column in roles.items() if column}
        if all(role in columns for role in NEEDS[form]) and mapped.keys() & _PAIR_ROLES <= roles.keys():
            guess = Reading(form=form, columns=columns, is_named=False)
            if guess not in found:
                found.append(guess)

    for first, middle, last in _INSTRUCTED:
        second = next((name for name in middle if name in names or not name), None)
        asked, answered = mapped.get("instruction", names.get(first)), mapped.get("output", names.get(last))
        if second is not None:
            add("alpaca", instruction=asked, input=mapped.get("input", names.get(second)), output=answered)
    for first, last in _ASKED:
        add("qa", input=mapped.get("input", names.get(first)), output=mapped.get("output", names.get(last)))
    return found


def chosen(readings: Sequence[Reading], rows: Sequence[object]) -> tuple[Reading | None, list[Reading]]:
    """The reading that most of the rows have, and others that fit as well; None when no row has any.

    One that says more wins over one that fits more rows where it fits most of them: a row in which the conversation
    is missing makes no file of plain texts. Raises DataError when two guesses fit equally.
    """
    fitting = [(reading, {index for index, row in enumerate(rows) if reading.fits(row)}) for reading in readings]
    most = max((len(fits) for _, fits in fitting), default=0)
    if not most:
        return None, []
    reading, fits = next((reading, fits) for reading, fits in fitting if 2 * len(fits) > most)
    if len(fits) < most and not any(len(other) == most and fits <= other for _, other in fitting):
        reading, fits = next((reading, fits) for reading, fits in fitting if len(fits) == most)
    said = set(reading.carried().values())
    equal = [
        other
        for other, rows_of_other in fitting
        if other != reading and rows_of_other >= fits and not said >= set(other.carried().values())
    ]
    if not reading.is_named:
        rivals = [other for other in equal if other.form in ("alpaca", "qa")]
        if rivals:
            raise DataError(
                f"the rows can be read in more ways than one: as {reading.shown()}, or as {rivals[0].shown()}",
                hint="say which with data.columns, as in --columns input=question,output=answer",
            )
    return reading, equal


def turn_form(turns: object) -> str:
    """Which of the two forms a list of turns has; the empty string when it is none."""
    try:
        turns = turn_list(turns)
    except RowError:
        return ""
    first = next((turn for turn in turns if turn), None)
    if not isinstance(first, dict):
        return ""
    if first.get("from") is not None or pair_keys(first):
        return "sharegpt"
    return "messages" if "role" in first or "from" in first else ""


def turn_column(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The column that has the turns, the first with something in it; the empty string when there is none."""
    empty = ""
    for column in (columns["messages"],) if "messages" in columns else TURN_COLUMNS:
        if column in row:
            if has_something(row[column]):
                return column
            empty = empty or column
    return empty


def has(row: Mapping[str, Any], columns: Mapping[str, str], role: str) -> bool:
    """Whether a row has the column of a role."""
    if role == "messages":
        return bool(turn_column(row, columns))
    return columns.get(role) in row


def looks_like(names: Mapping[str, str]) -> str:
    """What is odd about the names of columns, where they are nearly those of a form."""
    asking, answering = {"instruction", *(pair[0] for pair in _ASKED)}, {"output", *(pair[1] for pair in _ASKED)}
    known = {*TURN_COLUMNS, *COLUMN_ROLES, *asking, *answering}
    near = [name for name in names.values() if name != name.strip() and name.strip().lower() in known]
    if near:
        return f"the key {quoted(near[0])} has a space too many"
    asked = next((names[name] for name in names if name in asking), None)
    if asked and not names.keys() & answering:
        return f"{asked} may be the question, but no key looks like its answer"
    return ""


def _of_form(form: str, own: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    columns = dict(own)
    if form in ("sharegpt", "messages") and "messages" not in columns:
        found = next((names[name] for name in TURN_COLUMNS if name in names and names[name] != name), None)
        if found and not any(name in names.values() for name in TURN_COLUMNS):
            columns["messages"] = found
    return columns


def _first(role: str, candidates: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    found = next((names[name] for name in candidates if name in names), None)
    return {role: found} if found else {}
