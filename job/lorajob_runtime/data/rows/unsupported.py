"""Rows that are made for another kind of training, known by their columns and refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract.text import quoted
from lorajob_runtime.data.rows.unused import has_something

_COMPARED: tuple[tuple[str, ...], ...] = (
    ("chosen", "rejected"),
    ("chosen", "reject"),
    ("accepted", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_messages", "rejected_messages"),
    ("preferred_output", "non_preferred_output"),
    ("rejected_response",),
    ("rejected_messages",),
    ("rejected_output",),
    ("rejected_answer",),
)
"""A better answer with a worse one; or a worse one alone, beside the answer of a form."""
_JUDGED = ("kto_tag", "kto_label")
_TURNS = ("messages", "conversations", "conversation")
_MEDIA = ("images", "videos", "audios")
_PLACES = ("<bbox>", "<ref-object>")
"""Where ms-swift puts what the column `objects` has."""
_MEDIUM = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
_TREE = {"message_id", "parent_id", "role", "text"}
_TELLING = frozenset(
    (*(name for names in _COMPARED for name in names), *_JUDGED, "label", *_MEDIA, *_MEDIUM, "objects", "message_id")
)
"""Columns without which a row is nothing of this, as nearly all rows are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """What rows are made for: `of_row` reads on after "row 7", `of_file` stands alone; `hint` says what can be done."""

    of_row: str
    of_file: str
    hint: str


def may_be(row: Mapping[str, Any]) -> bool:
    """Whether a row has any of the columns without which it is nothing of this."""
    return not _TELLING.isdisjoint(row)


def known_as(
    row: Mapping[str, Any], *, answer: str | None, chosen: Iterable[str], is_one_of_many: bool = False
) -> Foreign | None:
    """What a row is made for when that is not answering; None for every other row.

    `answer` is the column of the answer, where one was found. With `chosen`, the columns that data.columns names, the
    user has said which answer is to be trained. `is_one_of_many`: what most rows are is asked for, so that a label
    that is 1 may be true; one row alone does not tell, since 2 may be another label.
    """
    if not may_be(row):
        return None
    media = _media(row)
    if media:
        return _images(media)
    place = next((place for place in _PLACES if has_something(row.get("objects")) and _has_text(row, place)), None)
    if place:
        return _objects(place)
    if set(chosen):
        return None
    compared = next((names for names in _COMPARED if all(_is_answer(row.get(name)) for name in names)), None)
    if compared:
        return _preference(compared, row, answer)
    judged = next((name for name in _JUDGED if has_something(row.get(name))), None)
    if judged is None and answer not in (None, "label") and _is_judgement(row.get("label"), answer, is_one_of_many):
        judged = "label"
    if judged:
        return _judged(judged, answer)
    if row.keys() >= _TREE:
        return Foreign(
            of_row="is one message of a tree of conversations ('parent_id')",
            of_file="these are single messages of trees of conversations ('message_id', 'parent_id')",
            hint="write one row for each conversation, its messages in a list",
        )
    return None


def _media(row: Mapping[str, Any]) -> str:
    found = next((name for name in _MEDIA if _has_files(row.get(name))), "")
    if found:
        return found
    for name, placeholder in _MEDIUM.items():
        value = row.get(name)
        if isinstance(value, dict) and value.keys() & {"bytes", "path"} and any(value.values()):
            return name
        if has_something(value) and any(placeholder in str(other) for key, other in row.items() if key != name):
            return name
    return ""


def _has_text(row: Mapping[str, Any], text: str) -> bool:
    return any(text in str(value) for value in row.values())


def _objects(place: str) -> Foreign:
    said = f"'objects', which belong in place of {place} in the text"
    return Foreign(
        of_row=f"has {said}", of_file=f"these rows have {said}", hint="write them there, and remove the column"
    )


def _has_files(value: object) -> bool:
    return any(has_something(item) for item in value) if isinstance(value, list) else has_something(value)


def _images(column: str) -> Foreign:
    return Foreign(
        of_row=f"has {quoted(column)}: only text can be trained here",
        of_file=f"these rows have {quoted(column)}: only text can be trained here",
        hint="leave those rows out, or the column where the text does not need it",
    )


def _preference(names: tuple[str, ...], row: Mapping[str, Any], answer: str | None) -> Foreign:
    listed = ", ".join(quoted(name) for name in names)
    better, turns = names[0], row.get(names[0])
    asked = next((name for name in ("prompt", "question", "instruction", "query", "input") if name in row), None)
    asked = asked or next((name for name in _TURNS if name in row), None)
    if len(names) == 1:
        columns = f"{'messages' if answer in _TURNS else 'output'}={answer}"
    elif isinstance(turns, list) and len(turns) > 1:
        columns = f"messages={better}"
    elif asked == "instruction":
        # so that an input beside it stays part of the question
        columns = f"output={better}"
    else:
        columns = f"input={asked},output={better}" if asked else f"text={better}"
    return Foreign(
        of_row=f"is a preference row ({listed})",
        of_file=f"these are preference rows: {listed}; answers are trained here, not compared",
        hint=f"to train the better answers alone, say so: --columns {columns}",
    )


def _judged(name: str, answer: str | None) -> Foreign:
    role = "messages" if answer in _TURNS else "output"
    return Foreign(
        of_row=f"is a KTO row ({quoted(name)} says whether the answer is a good one)",
        of_file=f"these are KTO rows: {quoted(name)} says whether an answer is good, and bad ones would be trained",
        hint=f"keep the rows with good answers only; to train every row as it stands, say --columns {role}={answer}",
    )


def _is_answer(value: object) -> bool:
    return isinstance(value, str | list | dict) and has_something(value)


def _is_judgement(value: object, answer: str | None, may_be_number: bool) -> bool:
    """Whether a label says if an answer is good: the word True, or 1, is one only beside a `completion`."""
    words = ("true", "false", *(("0", "1", "0.0", "1.0") if may_be_number else ()))
    return isinstance(value, bool) or (answer == "completion" and str(value).strip().lower() in words)
