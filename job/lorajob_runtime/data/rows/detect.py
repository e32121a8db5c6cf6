"""Which form a file's rows have: as the spec says, else as most of its first rows have it; said in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.contract.text import replace_surrogates
from lorajob_runtime.data.rows import column_roles, unsupported
from lorajob_runtime.data.rows.column_roles import NEEDS, Reading, turn_column
from lorajob_runtime.data.rows.formats import Form
from lorajob_runtime.data.rows.suggestions import first_row, no_form, refuse_columns
from lorajob_runtime.data.rows.unsupported import Foreign

LOOKED_AT = 200
"""Rows that the form is detected from."""


def detect(rows: Sequence[object], data: DataSpec, further: Collection[str] = ()) -> Form:
    """The form of a file's rows: as `data.format` says, else the one that most of the first rows have.

    `further` are columns that rows behind these have.

    Raises DataError when no row has a known form, when two fit equally, when the rows are made for another kind of
    training, or when `data.columns` names a column that no row has.
    """
    looked_at = rows[:LOOKED_AT]
    for role, column in data.columns.items():
        if column not in further and not any(isinstance(row, dict) and column in row for row in rows):
            said = f"data.columns maps {role} to {column!r}, a column that no row has: {first_row(rows[0])}"
            raise DataError(said, hint="name a column that is there")
    names = _names(looked_at)
    possible = [
        reading for reading in column_roles.possible(names, data.columns) if data.format in ("auto", reading.form)
    ]
    reading, others = column_roles.chosen(possible, looked_at)
    chosen = frozenset(data.columns[role] for role in ("output", "messages", "text") if role in data.columns)
    if known := _mostly_foreign(looked_at, reading, chosen):
        raise DataError(known.of_file, hint=known.hint)
    if reading is None and data.format == "auto":
        raise no_form(rows[0], names, is_alone=len(rows) == 1, mapped=data.columns)
    reading = reading or possible[0]
    _refuse_unfit(data.columns, reading.form)
    if len(rows) == 1 and "messages" not in NEEDS[reading.form]:
        refuse_columns(rows[0], [reading.columns[role] for role in NEEDS[reading.form]])
    verdict = replace_surrogates(_verdict(reading, data, looked_at))
    if others and data.format == "auto":
        also = ", ".join(other.shown() for other in others)
        verdict += f"; {also} would fit as well (choose with data.format or data.columns)"
    return Form(name=reading.form, columns=reading.columns, system=data.system, verdict=verdict, chosen=chosen)


def _refuse_unfit(mapped: Mapping[str, str], form: str) -> None:
    """Raises DataError when data.columns names a column for a role that a form has no use for."""
    unfit = next((role for role in mapped if role not in column_roles.TAKES[form]), None)
    if unfit is None:
        return
    where = ", whose turns have thoughts of their own" if unfit == "thought" and "messages" in NEEDS[form] else ""
    raise DataError(
        f"data.columns maps {unfit} to {mapped[unfit]!r}, and rows of the form {form} have no {unfit}{where}",
        hint="leave it out, or name columns that make another form",
    )


def _names(rows: Sequence[object]) -> dict[str, str]:
    """Name in lower case -> column, as the first row writes it that has it so; a name in lower case wins."""
    found: dict[str, str] = {}
    for row in rows:
        for name in row if isinstance(row, dict) else ():
            if name.lower() == name:
                found[name] = name
            else:
                found.setdefault(name.lower(), name)
    return found


def _mostly_foreign(rows: Sequence[object], reading: Reading | None, chosen: frozenset[str]) -> Foreign | None:
    """What more than half of the rows are made for, when it is not answering."""
    form = Form(name=reading.form, columns=reading.columns, system=None, verdict="") if reading else None
    found = []
    for row in rows:
        if isinstance(row, dict):
            answer = form.answer_column(row) if form else None
            found.append(unsupported.known_as(row, answer=answer, chosen=chosen, is_one_of_many=True))
    found = [known for known in found if known]
    return found[0] if 2 * len(found) > len(rows) else None


def _verdict(reading: Reading, data: DataSpec, rows: Sequence[object]) -> str:
    how = f"as data.format says: {reading.form}" if data.format != "auto" else f"detected as {reading.form}"
    first = next((row for row in rows if reading.fits(row)), rows[0])
    columns = reading.columns
    if isinstance(first, list):
        return f"{how}, each row a list of turns"
    if reading.form in ("sharegpt", "messages"):
        turns = turn_column(first, columns) if isinstance(first, dict) else "the row"
        tools = f", tools in {columns['tools']}" if "tools" in columns else ""
        return f"{how}, turns in {turns or 'messages'}{tools}"
    if reading.form == "text":
        return f"{how}, {columns['text']} trained whole{', and data.system has no place in it' if data.system else ''}"
    shown = first if isinstance(first, dict) else {}
    asking = [columns[role] for role in ("instruction", "input") if columns.get(role) in shown]
    parts = ["user = " + " + ".join(asking), f"answer = {columns['output']}"]
    if columns.get("system") in shown:
        parts.insert(0, f"system = {columns['system']}")
    if columns.get("thought") in shown:
        parts.insert(-1, f"thought = {columns['thought']}")
    if columns.get("tools") in shown:
        parts.insert(-1, f"tools = {columns['tools']}")
    return f"{how}, {', '.join(parts)}"
