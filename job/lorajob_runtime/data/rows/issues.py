"""What is wrong with rows of a dataset. What of it shows without a tokenizer is said before a model is fetched.

Standard library only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import dropped_share
from lorajob_runtime.contract.text import plural
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text, too_deep
from lorajob_runtime.data.rows.formats import Form
from lorajob_runtime.data.rows.load import Loaded

Severity = Literal["error", "dropped", "truncated", "warning"]

TOO_LONG = "more tokens than data.maxLength"
NO_ANSWER_LEFT = "no answer left within data.maxLength"

_BY_CHOICE = (TOO_LONG, NO_ANSWER_LEFT)
"""Dropped because data.maxLength and data.overflow say so: that is no fault of the data."""
_ROUNDING = 1e-6
_KEPT = 1000
"""Issues of one sort that are kept, beyond which they are only counted."""
_REASONS_HELD = 20
_REASONS_SHOWN = 3
_OTHER_REASONS = "other reasons"
_TURN = re.compile(r"\bturn \d+\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowIssue:
    """What is wrong with one row; `number` counts from 1. An error ends a run, the others are counted.

    `at_fault` rows are left out as far as data.maxDropped goes; their reason reads on after "row 7".
    """

    number: int
    reason: str
    severity: Severity
    at_fault: bool = False

    @classmethod
    def of(cls, index: int, error: RowError) -> RowIssue:
        """Of the row at `index`, which counts from 0."""
        return cls(number=index + 1, reason=error.reason, severity="dropped", at_fault=not error.droppable)


@dataclass(kw_only=True, slots=True)
class IssueLog:
    """What is wrong with the rows of a selection: all of it counted, and the first issues of every sort kept."""

    kept: list[RowIssue] = field(default_factory=list)
    counts: Counter[Severity] = field(default_factory=Counter)
    at_fault: int = 0
    """Of those that are dropped, the rows that data.maxDropped limits."""
    by_choice: int = 0
    """Of those that are dropped, the rows that are too long."""
    _sorts: Counter[tuple[Severity, bool, bool]] = field(default_factory=Counter)
    _reasons: Counter[str] = field(default_factory=Counter)
    _first: dict[str, int] = field(default_factory=dict)
    _reasons_at_fault: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, RowIssue] = field(default_factory=dict)

    def add(self, issue: RowIssue) -> None:
        """Counts an issue, and keeps it where it is one of the first."""
        sort = (issue.severity, issue.at_fault, issue.reason in _BY_CHOICE)
        self._sorts[sort] += 1
        if self._sorts[sort] <= _KEPT:
            self.kept.append(issue)
        self.counts[issue.severity] += 1
        if issue.severity != "dropped":
            return
        self.by_choice += issue.reason in _BY_CHOICE
        reason = _held(_kind(issue), self._reasons)
        self._reasons[reason] += 1
        self._first.setdefault(reason, issue.number)
        if issue.at_fault:
            self.at_fault += 1
            reason = _held(_kind(issue), self._reasons_at_fault)
            self._reasons_at_fault[reason] += 1
            self._examples.setdefault(reason, issue)

    def dropped(self) -> dict[str, int]:
        """Reason -> rows left out for it, the commonest first; reasons that differ in the turn alone are one."""
        return dict(self._reasons.most_common())

    def first_dropped(self) -> dict[str, int]:
        """Reason -> the first row that was left out for it."""
        return dict(self._first)

    def first(self, *, at_fault: bool = False) -> RowIssue | None:
        """The first row that is left out and not for its length alone; of those `at_fault` if that is asked for."""
        found = (issue for issue in self.kept if issue.severity == "dropped" and issue.reason not in _BY_CHOICE)
        return next((issue for issue in found if issue.at_fault or not at_fault), None)

    def commonest(self) -> str:
        """The three commonest reasons for which rows are at fault, each with an example as it stands."""
        counts = self._reasons_at_fault.most_common()
        shown = []
        for reason, count in counts[:_REASONS_SHOWN]:
            more = f" and {count - 1:,} more" if count > 1 else ""
            shown.append(f"row {self._examples[reason].number}{more}: {self._examples[reason].reason}")
        left = sum(count for _, count in counts[_REASONS_SHOWN:])
        return "; ".join(shown) + (f"; {plural(left, 'row')} for other reasons" if left else "")


def refuse_errors(log: IssueLog, source: object) -> None:
    """Raises DataError for the first row that may not be as it is, and says how many more there are."""
    first = next((issue for issue in log.kept if issue.severity == "error"), None)
    if first is not None:
        raise _refused(first, log.counts["error"], source)


def refuse_dropped(log: IssueLog, rows: int, field: str, limit: str, source: object) -> None:
    """Raises DataError when more of the `rows` in `field` are at fault than `limit`, data.maxDropped, allows.

    Rows without anything to learn and rows that are too long count only where none at all may be dropped.
    """
    share = dropped_share(limit)
    hint = f"correct what is at fault; to train without it raise data.maxDropped, which is {limit}"
    if share is None:
        hint = "correct what is at fault; to train without it set data.maxDropped to a share like 5%"
        first = log.first()
        if first is not None and not first.at_fault:
            where = f"row {first.number} (counted from 1)"
            said = f"{source}: {where} would be left out ({first.reason}), and data.maxDropped is error"
            raise DataError(said, hint=hint)
        if first is not None:
            raise _refused(first, log.counts["dropped"] - log.by_choice, source, hint)
        return
    if log.at_fault <= share * rows + _ROUNDING:
        return
    first = log.first(at_fault=True)
    if log.at_fault == 1 and first is not None:
        raise _refused(first, 1, source, hint)
    raise DataError(
        f"{source}: {log.at_fault:,} of {plural(rows, 'row')} in {field} cannot be used "
        f"({log.at_fault / rows:.1%}, data.maxDropped is {limit}): {log.commonest()}",
        hint=hint,
    )


def listed(dropped: Mapping[str, int]) -> str:
    """`2 rows (empty output), 1 row (no answer)`, of reason -> rows."""
    return ", ".join(f"{plural(count, 'row')} ({reason})" for reason, count in dropped.items())


def nothing_left(dropped: Mapping[str, int], field: str, source: object) -> DataError:
    """The error for a range of which no row is left. `dropped` is reason -> rows."""
    return DataError(f"{source} has nothing to train on in {field}: {listed(dropped) or 'no rows'}")


def refuse_unusable(loaded: Loaded, limit: str) -> None:
    """Raises DataError when more rows than `limit`, data.maxDropped, allows cannot be trained on by any model.

    So it does for a range that would be dropped whole.
    """
    source, form, selection = loaded.source, loaded.form, loaded.selection
    train, held_out = IssueLog(), IssueLog()
    for index, row in enumerate(source.until(selection.stop)):
        log = held_out if index in selection.evaluation else train if index in selection.train else None
        if log is not None and isinstance(item := converted(form, row), RowError):
            log.add(RowIssue.of(index, item))
    for field_name, rows, log in (
        ("data.rows", len(selection.train), train),
        ("data.evalRows", len(selection.evaluation), held_out),
    ):
        refuse_dropped(log, rows, field_name, limit, source.path)
        if rows and log.counts["dropped"] == rows:
            raise nothing_left(log.dropped(), field_name, source.path)


def converted(form: Form, row: object) -> Conversation | Text | RowError:
    """A row as it would be trained on, or what is wrong with it, in the file or in the row."""
    if isinstance(row, RowError):
        return row
    try:
        return form.convert(row)
    except RowError as error:
        return error
    except RecursionError:
        return too_deep()


def _refused(first: RowIssue, count: int, source: object, hint: str | None = None) -> DataError:
    more = f" (at fault as well: {plural(count - 1, 'row')})" if count > 1 else ""
    return DataError(f"{source}: row {first.number} (counted from 1) {first.reason}{more}", hint=hint)


def _held(reason: str, counts: Counter[str]) -> str:
    return reason if reason in counts or len(counts) < _REASONS_HELD else _OTHER_REASONS


def _kind(issue: RowIssue) -> str:
    return _TURN.sub("a turn", issue.reason) if issue.at_fault else issue.reason
