"""One pass over a dataset as one model reads it: the same for a check and for a run, in what it counts and refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec, RunSpec
from lorajob_runtime.contract.text import plural
from lorajob_runtime.data.chat.tokenizer import Tokenizer
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.encode_blocks import encode_blocks, processes_for, rows_of_block
from lorajob_runtime.data.encode_rows import EncodedRows, Numbered, Sink, encode_rows
from lorajob_runtime.data.rows.issues import NO_ANSWER_LEFT, TOO_LONG, nothing_left, refuse_dropped, refuse_errors
from lorajob_runtime.data.rows.load import Loaded
from lorajob_runtime.data.rows.select import Selection
from lorajob_runtime.data.rows.unused import UnusedNames
from lorajob_runtime.models.token_limits import UNKNOWN, Bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedDataset:
    """What became of the rows that are trained on and of those that are held out."""

    loaded: Loaded
    encoder: Encoder
    train: EncodedRows
    held_out: EncodedRows


def encode_dataset(
    spec: RunSpec,
    tokenizer: Tokenizer,
    loaded: Loaded,
    *,
    samples: int,
    train: Sink,
    held_out: Sink,
    bounds: Bounds = UNKNOWN,
) -> EncodedDataset:
    """Runs the rows through form, template and tokenizer, and their sequences into the two sinks.

    `bounds` are the model's: a row that it cannot read is an error.

    Raises DataError when the file changes meanwhile, ModelError for a model without a template where one is needed, and
    what the sinks raise. What is wrong with rows is for `refuse`.
    """
    encoder = Encoder(tokenizer, thinking=spec.data.thinking, bounds=bounds)
    source, selection = loaded.source, loaded.selection
    parts = EncodedRows(sink=train), EncodedRows(sink=held_out)

    def encode(rows: Iterable[Numbered], into: tuple[EncodedRows, EncodedRows]) -> None:
        encode_rows(rows, into, selection=selection, form=loaded.form, encoder=encoder, data=spec.data, samples=samples)

    def rows() -> Iterator[Numbered]:
        return enumerate(source.until(selection.stop))

    processes = processes_for(source, len(selection.train) + len(selection.evaluation), encoder)
    if processes == 1:
        encode(rows(), parts)
    else:
        size = rows_of_block(source)
        encode_blocks(processes, size, rows, encode, parts, samples=samples, encoder=encoder)
    return EncodedDataset(loaded=loaded, encoder=encoder, train=parts[0], held_out=parts[1])


def refuse(dataset: EncodedDataset, data: DataSpec) -> None:
    """Raises DataError when a range cannot be used as it is: nothing left of it, or too many rows at fault."""
    selection, path = dataset.loaded.selection, dataset.loaded.source.path
    for found, rows, field in (
        (dataset.train, len(selection.train), "data.rows"),
        (dataset.held_out, len(selection.evaluation), "data.evalRows"),
    ):
        refuse_errors(found.issues, path)
        refuse_dropped(found.issues, rows, field, data.max_dropped, path)
        if rows:
            _refuse_empty(found, field, data, path)


def notes(selection: Selection, found: EncodedRows) -> tuple[str, ...]:
    """What a person should know of the rows, one line each."""
    lines = [f"{plural(count, 'row')}: {note}" for note, count in found.notes.items()]
    if found.sequences > found.rows:
        lines.append(
            f"{plural(found.rows, 'row')}: trained as {found.sequences:,} sequences, "
            "because the chat template rewrites earlier turns when a turn is added"
        )
    if selection.overlap:
        lines.append(
            f"{plural(selection.overlap, 'row')}: in data.rows and data.evalRows, so held out and not trained on"
        )
    return tuple(lines)


def warnings(dataset: EncodedDataset, data: DataSpec) -> tuple[str, ...]:
    """What of the rows the model was not made for, one line each."""
    excess = dataset.encoder.bounds.excess(data.max_length)
    found = dataset.train.warnings + dataset.held_out.warnings
    return tuple([excess] if excess else []) + tuple(f"{plural(count, 'row')}: {text}" for text, count in found.items())


def unused_names(*parts: EncodedRows) -> dict[str, int]:
    """What rows have and nothing reads: column, or key of a turn, call or content part -> rows."""
    both = UnusedNames()
    for found in parts:
        both.merge(found.unused)
    return both.counts()


def _refuse_empty(found: EncodedRows, field: str, data: DataSpec, path: Path) -> None:
    """Raises DataError when no token carries loss; when the limit is why, with the length that would do."""
    if found.sequences:
        return
    reasons = found.dropped()
    if found.shortest_fit is not None and reasons.keys() & {NO_ANSWER_LEFT, TOO_LONG}:
        longest = max(found.lengths)
        raise DataError(
            f"data.maxLength {data.max_length} is too small for any answer in {field} of {path}: "
            f"at least {found.shortest_fit} tokens are needed, and {longest} to cut nothing",
            hint=f"set data.maxLength to {longest}",
        )
    raise nothing_left(reasons, field, path)
