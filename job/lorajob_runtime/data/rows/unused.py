"""What rows have and training does not use: counted by name, so that nothing is ignored without a word.

Standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from lorajob_runtime.contract.text import plural, quoted, replace_surrogates

Place = Literal["column", "turn key", "call key", "part key"]

_NAMES_HELD = 1000
"""Names may be data themselves, an identifier each: beyond so many they are counted together."""
_LONGEST_NAME = 100
_NAMES_SHOWN = 12
_OTHERS = "other names"
_PLACES: dict[str, str] = {
    "column": "columns",
    "turn key": "keys of turns",
    "call key": "keys of calls",
    "part key": "keys of content parts",
}
_HARMLESS = frozenset(
    (
        *("id", "idx", "index", "uid", "uuid", "guid", "_id", "row_id", "example_id", "sample_id", "question_id"),
        *("prompt_id", "conversation_id", "conversation_hash", "conv_id", "dialogue_id", "dialog_id", "session_id"),
        *("message_id", "turn_id", "task_id", "hash", "md5", "sha256", "timestamp", "created", "created_at"),
        *("updated_at", "date", "time", "source", "dataset", "data_source", "dataset_name", "source_dataset"),
        *("origin", "url", "link", "file", "filename", "path", "lang", "language", "locale", "license"),
        *("copyright", "author", "version", "__index_level_0__"),
    )
)
"""Names that say which row it is and where it came from, and nothing about what is to be learned."""
_SIZED = (str, list, dict)


def named(place: Place, name: object) -> str:
    """How an unused name is counted: the place, and the name as it stands there."""
    text = replace_surrogates(str(name))
    return f"{place} {text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + '…'}"


def beside(place: Place, value: Mapping[str, Any], used: Collection[str]) -> Iterable[str]:
    """The names in one mapping that are not used and have something in them: a null or an empty text says nothing."""
    return (named(place, name) for name, item in value.items() if name not in used and has_something(item))


def has_something(value: object) -> bool:
    """Whether a value is neither null nor empty."""
    return not (value is None or value != value or (isinstance(value, _SIZED) and not value))


def says_something(value: Mapping[str, Any], *, beside: Collection[str]) -> bool:
    """Whether a mapping has more in it than certain names and those that only say which row it is."""
    others = (name for name, item in value.items() if name not in beside and has_something(item))
    return any(not _is_harmless(str(name)) for name in others)


class UnusedNames:
    """Counts in how many rows each name was not used, in bounded memory."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()

    def add(self, names: Iterable[str]) -> None:
        """The names of one row."""
        for name in sorted(names):
            self._count(name, 1)

    def merge(self, other: UnusedNames) -> None:
        """What was counted elsewhere."""
        for name, rows in other._rows.items():
            self._count(name, rows)

    def _count(self, name: str, rows: int) -> None:
        self._rows[name if name in self._rows or len(self._rows) < _NAMES_HELD else _OTHERS] += rows

    def counts(self) -> dict[str, int]:
        """Name -> rows, the most frequent first."""
        return dict(sorted(self._rows.items(), key=lambda item: (-item[1], item[0])))


def lines(unused: Mapping[str, int]) -> list[str]:
    """What a person reads of `unused`: a line for each place, and one for all names that only say which row it is."""
    found = []
    for place, places in _PLACES.items():
        rows = {name: count for name, count in _at(place, unused).items() if not _is_harmless(name)}
        if rows:
            found.append(f"{places} {_listed(rows)}")
    known: dict[str, int] = {}
    for place in _PLACES:
        for name, count in _at(place, unused).items():
            if _is_harmless(name):
                known[name] = max(count, known.get(name, 0))
    if known:
        found.append(f"{_listed(known)}, which only say which row it is")
    if others := unused.get(_OTHERS):
        found.append(f"more names than can be counted one by one, {others:,} times")
    return found


def _at(place: str, unused: Mapping[str, int]) -> dict[str, int]:
    rows = ((key.removeprefix(f"{place} "), count) for key, count in unused.items() if key.startswith(f"{place} "))
    return dict(rows)


def _is_harmless(name: str) -> bool:
    return name.strip().lower() in _HARMLESS


def _listed(rows: Mapping[str, int]) -> str:
    """`'A', 'B' (463 rows), 'C' (2 rows) and 5 more`: names with as many rows stand together."""
    shown = list(rows.items())[:_NAMES_SHOWN]
    groups: dict[int, list[str]] = {}
    for name, count in shown:
        groups.setdefault(count, []).append(quoted(name))
    text = ", ".join(f"{', '.join(names)} ({plural(count, 'row')})" for count, names in groups.items())
    return text + (f" and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else "")
