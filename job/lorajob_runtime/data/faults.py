"""What is wrong with rows of a dataset. What of it shows without a tokenizer is said before a model is fetched.

Standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.data.conversation import RowError
from lorajob_runtime.data.forms import Form
from lorajob_runtime.data.select import Selection
from lorajob_runtime.data.wording import counted
from lorajob_runtime.exits import DataError

Severity = Literal["error", "dropped", "truncated", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with one row; `number` counts from 1. An error ends a run, the others are counted."""

    number: int
    reason: str
    severity: Severity

    @classmethod
    def of(cls, index: int, error: RowError) -> Fault:
        """Of the row at `index`, which counts from 0."""
        return cls(number=index + 1, reason=error.reason, severity="dropped" if error.droppable else "error")


def refuse_errors(faults: Iterable[Fault], source: object) -> None:
    """Raises DataError for the first row that is wrong, and says how many more there are."""
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors:
        first = errors[0]
        more = f" (at fault as well: {counted(len(errors) - 1, 'row')})" if len(errors) > 1 else ""
        raise DataError(f"{source}: row {first.number} (counted from 1) {first.reason}{more}")


def nothing_left(dropped: Mapping[str, int], field: str, source: object) -> DataError:
    """The error for a range of which no row is left. `dropped` is reason -> rows."""
    listed = ", ".join(f"{counted(count, 'row')} with {reason}" for reason, count in dropped.items()) or "no rows"
    return DataError(f"{source} has nothing to train on in {field}: {listed}")


def refuse_unusable(rows: Sequence[object], form: Form, selection: Selection, source: object) -> None:
    """Raises DataError for a row that no model could be trained on, and for a range that would be dropped whole."""
    for field, indices in (("data.rows", selection.train), ("data.evalRows", selection.evaluation)):
        faults = list(_faults(rows, indices, form))
        refuse_errors(faults, source)
        if indices and len(faults) == len(indices):
            raise nothing_left(Counter(fault.reason for fault in faults), field, source)


def _faults(rows: Sequence[object], indices: Iterable[int], form: Form) -> Iterator[Fault]:
    for index in indices:
        try:
            form.convert(rows[index])
        except RowError as error:
            yield Fault.of(index, error)
