"""Loads a dataset: its file, the form of its rows, and which of them are meant. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.detect import detect
from lorajob_runtime.data.rows.formats import Form
from lorajob_runtime.data.rows.read import Source, read
from lorajob_runtime.data.rows.select import Selection, select

EXAMPLE = "lighthouse.json"
"""The example set that is trained on when a spec names no dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A dataset file, the form of its rows, and which of them are meant."""

    source: Source
    form: Form
    selection: Selection


def load(data: DataSpec) -> Loaded:
    """The file that a spec names, or the example set. Raises DataError, ConfigError."""
    if data.source is None:
        example = resources.files("lorajob_runtime.data") / "examples" / EXAMPLE
        with resources.as_file(example) as path:
            source = read(path)
    else:
        source = read(Path(os.path.expanduser(data.source)))
    form = _form_of(source, data)
    return Loaded(source=source, form=form, selection=select(len(source), data.rows, data.eval_rows))


def _form_of(source: Source, data: DataSpec) -> Form:
    """The form of a file's rows. Raises DataError when they have none, or none can be used."""
    if not source.head:
        first = next(iter(source))
        reason = first.reason if isinstance(first, RowError) else "is nothing"
        raise DataError(f"{source.path} has no row that can be used: row 1 {reason}", hint="correct the rows")
    return detect(source.head, data, source.names)
