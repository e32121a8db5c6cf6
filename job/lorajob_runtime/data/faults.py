"""What is wrong with rows of a dataset. What of it shows without a tokenizer is said before a model is fetched.

Standard library only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.data.conversation import RowError
from lorajob_runtime.data.forms import Form
from lorajob_runtime.data.select import Selection
from lorajob_runtime.data.wording import counted
from lorajob_runtime.exits import DataError
from lorajob_runtime.spec import dropped_share

Severity = Literal["error", "dropped", "truncated", "warning"]

TOO_LONG = "more tokens than data.maxLength"
NO_ANSWER_LEFT = "no answer left within data.maxLength"

_BY_CHOICE = (TOO_LONG, NO_ANSWER_LEFT)
"""Dropped because data.maxLength and data.overflow say so: that is no fault of the data."""
_ROUNDING = 1e-6
_REASONS_HELD = 20
_REASONS_SHOWN = 3
_OTHER_REASONS = "other reasons"
_TURN = re.compile(r"\bturn \d+\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with one row; `number` counts from 1. An error ends a run, the others are counted.

    `at_fault` rows are left out as far as data.maxDropped goes; their reason reads on after "row 7".
    """

    number: int
    reason: str
    severity: Severity
    at_fault: bool = False

    @classmethod
    def of(cls, index: int, error: RowError) -> Fault:
        """Of the row at `index`, which counts from 0."""
        return cls(number=index + 1, reason=error.reason, severity="dropped", at_fault=not error.droppable)


def refuse_errors(faults: Iterable[Fault], source: object) -> None:
    """Raises DataError for the first row that may not be as it is, and says how many more there are."""
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors:
        raise _first_of(errors, source)


def refuse_dropped(faults: Iterable[Fault], rows: int, field: str, limit: str, source: object) -> None:
    """Raises DataError when more of the `rows` in `field` are at fault than `limit`, data.maxDropped, allows.

    Rows without anything to learn and rows that are too long count only where none at all may be dropped.
    """
    share = dropped_share(limit)
    found = [fault for fault in faults if fault.severity == "dropped"]
    if share is None:
        found = [fault for fault in found if fault.reason not in _BY_CHOICE]
        if found and not found[0].at_fault:
            first = f"row {found[0].number} (counted from 1)"
            raise DataError(f"{source}: {first} would be left out ({found[0].reason}), and data.maxDropped is error")
        if found:
            raise _first_of(found, source)
        return
    at_fault = [fault for fault in found if fault.at_fault]
    if len(at_fault) <= share * rows + _ROUNDING:
        return
    hint = f"correct what is at fault; to train without it raise data.maxDropped, which is {limit}"
    if len(at_fault) == 1:
        raise _first_of(at_fault, source, hint)
    raise DataError(
        f"{source}: {len(at_fault):,} of {counted(rows, 'row')} in {field} cannot be used "
        f"({len(at_fault) / rows:.1%}, data.maxDropped is {limit}): {_commonest(at_fault)}",
        hint=hint,
    )


def reasons(faults: Iterable[Fault]) -> dict[str, int]:
    """Reason -> rows that were left out for it, the commonest first; those that differ in the turn alone are one."""
    found: Counter[str] = Counter()
    for fault in faults:
        if fault.severity == "dropped":
            reason = _kind(fault)
            found[reason if reason in found or len(found) < _REASONS_HELD else _OTHER_REASONS] += 1
    return dict(found.most_common())


def listed(dropped: Mapping[str, int]) -> str:
    """`2 rows (empty output), 1 row (no answer)`, of reason -> rows."""
    return ", ".join(f"{counted(count, 'row')} ({reason})" for reason, count in dropped.items())


def nothing_left(dropped: Mapping[str, int], field: str, source: object) -> DataError:
    """The error for a range of which no row is left. `dropped` is reason -> rows."""
    return DataError(f"{source} has nothing to train on in {field}: {listed(dropped) or 'no rows'}")


def refuse_unusable(rows: Sequence[object], form: Form, selection: Selection, limit: str, source: object) -> None:
    """Raises DataError when more rows than `limit`, data.maxDropped, allows cannot be trained on by any model.

    So it does for a range that would be dropped whole.
    """
    for field, indices in (("data.rows", selection.train), ("data.evalRows", selection.evaluation)):
        faults = list(_faults(rows, indices, form))
        refuse_dropped(faults, len(indices), field, limit, source)
        if indices and len(faults) == len(indices):
            raise nothing_left(reasons(faults), field, source)


def _first_of(faults: Sequence[Fault], source: object, hint: str | None = None) -> DataError:
    first = faults[0]
    more = f" (at fault as well: {counted(len(faults) - 1, 'row')})" if len(faults) > 1 else ""
    return DataError(f"{source}: row {first.number} (counted from 1) {first.reason}{more}", hint=hint)


def _commonest(faults: Sequence[Fault]) -> str:
    """The three commonest reasons, each with an example as it stands."""
    counts = reasons(faults)
    shown = []
    for reason, count in list(counts.items())[:_REASONS_SHOWN]:
        example = next(fault for fault in faults if reason in (_kind(fault), _OTHER_REASONS))
        more = f" and {count - 1:,} more" if count > 1 else ""
        shown.append(f"row {example.number}{more}: {example.reason}")
    left = sum(list(counts.values())[_REASONS_SHOWN:])
    return "; ".join(shown) + (f"; {counted(left, 'row')} for other reasons" if left else "")


def _kind(fault: Fault) -> str:
    return _TURN.sub("a turn", fault.reason) if fault.at_fault else fault.reason


def _faults(rows: Sequence[object], indices: Iterable[int], form: Form) -> Iterator[Fault]:
    for index in indices:
        try:
            form.convert(rows[index])
        except RowError as error:
            yield Fault.of(index, error)
