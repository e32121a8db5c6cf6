"""What `lorajob data check` shows: how a dataset would be trained, with what is wrong with it. Needs no weights."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lorajob_runtime.contract.errors import DATA, DataError
from lorajob_runtime.contract.spec import DataSpec, RunSpec
from lorajob_runtime.contract.text import escape_controls, plural, truncate
from lorajob_runtime.data.chat.chat_template import ThinkingMode
from lorajob_runtime.data.chat.tokenizer import Tokenizer, decode, load_tokenizer
from lorajob_runtime.data.encode_dataset import EncodedDataset, encode_dataset, notes, refuse, unused_names, warnings
from lorajob_runtime.data.rows import unused
from lorajob_runtime.data.rows.issues import RowIssue
from lorajob_runtime.data.rows.load import load
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.models import token_limits

_FAULTS_SHOWN = 20
_BARS = 12
_BAR_WIDTH = 40
_GREEN, _DIM, _PLAIN = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of a sequence that is trained as a whole, or not."""

    text: str
    trained: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownRow:
    """A sequence as the model sees it, control tokens and all. `number` is its row's, from 1."""

    number: int
    tokens: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Sequences of `first` to `last` tokens, both included, before anything is cut."""

    first: int
    last: int
    sequences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """A dataset under the eyes of one model. `problem` is what a run would end with, None when it would train.

    `hint` is what helps against it, where that is known.

    `duplicates` are rows that are, token for token, the same as an earlier one. `unused` is what rows have and nothing
    reads, with the number of rows.
    """

    source: str
    format: str
    verdict: str
    template_family: str
    thinking_mode: ThinkingMode
    thinking: bool
    max_length: int
    rows_read: int
    rows_selected: int
    rows_used: int
    rows_dropped: dict[str, int]
    rows_truncated: int
    eval_rows: int
    duplicates: int
    sequences: int
    tokens: int
    target_tokens: int
    longest_tokens: int
    lengths: tuple[Bin, ...]
    faults: tuple[RowIssue, ...]
    """The first of each sort; `faults_found` counts all of them."""
    faults_found: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    unused: dict[str, int]
    shown: tuple[ShownRow, ...]
    problem: str | None
    hint: str | None


def check(spec: RunSpec, *, model_path: Path, shown_rows: int = 3) -> CheckReport:
    """Looks at `spec.data` with the tokenizer in `model_path`; faults of rows are listed, not raised.

    Raises DataError for a file that cannot be read or has no known form, ModelError, ConfigError.
    """
    data, loaded = spec.data, load(spec.data)
    tokenizer = load_tokenizer(model_path, trust_remote_code=spec.model.trust_remote_code)
    looked_at = _LookedAt(shown_rows)
    limits = token_limits.of_folder(model_path)
    dataset = encode_dataset(spec, tokenizer, loaded, samples=0, train=looked_at, held_out=_LookedAt(0), bounds=limits)
    train, held_out, selection = dataset.train, dataset.held_out, loaded.selection
    lengths, problem = train.lengths or Counter([0]), _problem(dataset, data)
    return CheckReport(
        source=str(loaded.source.path),
        format=loaded.form.name,
        verdict=loaded.form.verdict,
        template_family=dataset.encoder.family,
        thinking_mode=dataset.encoder.thinking_mode,
        thinking=data.thinking,
        max_length=data.max_length,
        rows_read=len(loaded.source),
        rows_selected=len(selection.train),
        rows_used=train.rows,
        rows_dropped=train.dropped(),
        rows_truncated=train.truncated(),
        eval_rows=held_out.rows,
        duplicates=looked_at.duplicates(),
        sequences=train.sequences,
        tokens=train.tokens,
        target_tokens=train.target_tokens,
        longest_tokens=max(lengths),
        lengths=histogram(lengths),
        faults=tuple(sorted((*train.issues.kept, *held_out.issues.kept), key=_severity_order)),
        faults_found=train.issues.counts.total() + held_out.issues.counts.total(),
        notes=notes(selection, train),
        warnings=warnings(dataset, data),
        unused=unused_names(train, held_out),
        shown=tuple(
            ShownRow(number=number, tokens=len(ids), spans=spans(tokenizer, ids, targets))
            for number, ids, targets in looked_at.shown
        ),
        problem=problem.message if problem else None,
        hint=problem.hint if problem and problem.hint != DATA.hint else None,
    )


def to_dict(report: CheckReport) -> dict[str, Any]:
    """The report as JSON values."""
    return asdict(report)


def check_text(report: CheckReport, colour: bool) -> str:
    """The report for a person. What is trained is green with `colour`, else between ⟦ and ⟧."""
    blocks = [_summary(report), _bars(report)]
    if report.faults:
        blocks.append(_issues(report.faults, report.faults_found))
    blocks += [_row(row, colour) for row in report.shown]
    if report.problem is not None:
        hint = f"\nhint: {report.hint}" if report.hint else ""
        blocks.append(f"A run with this dataset would end: {truncate(report.problem, 1000)}{hint}")
    return "\n\n".join(blocks) + "\n"


def spans(tokenizer: Tokenizer, ids: Ids, targets: Mask) -> tuple[Span, ...]:
    """A sequence in stretches that are trained or not, as text."""
    edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(ids)]
    return tuple(
        Span(text=decode(tokenizer, ids[start:stop].tolist()), trained=bool(targets[start]))
        for start, stop in pairwise(edges)
        if stop > start
    )


def histogram(lengths: Mapping[int, int]) -> tuple[Bin, ...]:
    """Counts of lengths in at most 12 bins of one width, a power of two; the last one takes the few that are longer.

    `lengths` are tokens -> sequences.
    """
    values, counts = np.array(list(lengths.items()), dtype=np.int64).T
    width, common = 1, np.percentile(np.repeat(values, counts), 98)
    while width * (_BARS - 1) < common:
        width *= 2
    places = np.minimum((np.maximum(values, 1) - 1) // width, _BARS - 1)
    found = np.zeros(int(places.max()) + 1, dtype=np.int64)
    np.add.at(found, places, counts)
    bins = [
        Bin(first=index * width + 1, last=(index + 1) * width, sequences=int(count))
        for index, count in enumerate(found)
    ]
    return (*bins[:-1], replace(bins[-1], last=max(bins[-1].last, int(values.max()))))


def _severity_order(issue: RowIssue) -> tuple[int, bool, int]:
    return ("error", "dropped", "warning", "truncated").index(issue.severity), not issue.at_fault, issue.number


@dataclass(slots=True)
class _LookedAt:
    """What a person is shown of the sequences: the first ones, and how many rows are the same."""

    wanted: int
    shown: list[tuple[int, Ids, Mask]] = field(default_factory=list)
    _hashes: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None:
        """Notes a row by 64 bits of a hash, of which ten million rows have two alike once in 400,000 files."""
        whole = hashlib.blake2b(digest_size=8)
        for ids, targets in sequences:
            whole.update(len(ids).to_bytes(8, "little") + ids.tobytes())
            if len(self.shown) < self.wanted:
                self.shown.append((number, ids, targets))
        self._hashes.append(int.from_bytes(whole.digest(), "little"))

    def duplicates(self) -> int:
        """Rows that are, token for token, the same as an earlier one."""
        return len(self._hashes) - len(np.unique(np.asarray(self._hashes)))


def _problem(dataset: EncodedDataset, data: DataSpec) -> DataError | None:
    try:
        refuse(dataset, data)
    except DataError as error:
        return error
    return None


def _summary(report: CheckReport) -> str:
    dropped = sum(report.rows_dropped.values())
    share = report.target_tokens / report.tokens if report.tokens else 0
    lines = [
        ("dataset", report.source),
        ("form", report.verdict),
        ("template", f"{report.template_family}, {_thinking(report)}"),
        (
            "rows",
            f"{report.rows_read:,} read, {report.rows_used:,} of {report.rows_selected:,} trained on, "
            f"{report.eval_rows:,} held out, {dropped:,} dropped, {report.rows_truncated:,} cut, "
            f"{plural(report.duplicates, 'duplicate')}",
        ),
        (
            "tokens",
            f"{report.tokens:,} an epoch in {plural(report.sequences, 'sequence')}, {report.target_tokens:,} trained "
            f"({share:.0%}); longest {report.longest_tokens:,}, data.maxLength {report.max_length:,}",
        ),
        *(("dropped", f"{plural(count, 'row')} ({reason})") for reason, count in report.rows_dropped.items()),
        *(("warning", warning) for warning in report.warnings),
        *(("note", note) for note in report.notes),
        *(("not used", line) for line in unused.lines(report.unused)),
    ]
    return "\n".join(f"{name:<9} {truncate(value, 800)}" for name, value in lines)


def _thinking(report: CheckReport) -> str:
    if report.thinking_mode == "none":
        return "no thinking mode"
    if report.thinking_mode == "always":
        return "thinking cannot be turned off"
    return f"thinking {'on' if report.thinking else 'off'}"


def _bars(report: CheckReport) -> str:
    most = max(item.sequences for item in report.lengths)
    wide = len(f"{report.lengths[-1].last:,}")
    lines = ["tokens of a sequence, before any cut"]
    for item in dropwhile(lambda item: not item.sequences, report.lengths):
        bar = "█" * -(-_BAR_WIDTH * item.sequences // most) if most else ""
        lines.append(f"{item.first:>{wide},}-{item.last:<{wide},} {bar} {item.sequences:,}")
    return "\n".join(lines)


def _issues(faults: Sequence[RowIssue], found: int) -> str:
    lines = [f"row {issue.number}: {issue.severity}: {truncate(issue.reason, 200)}" for issue in faults[:_FAULTS_SHOWN]]
    if found > _FAULTS_SHOWN:
        lines.append(f"and {found - _FAULTS_SHOWN:,} more")
    return "\n".join(("rows at fault, counted from 1", *lines))


def _row(row: ShownRow, colour: bool) -> str:
    before, after = (_GREEN, _PLAIN) if colour else ("⟦", "⟧")
    aside, normal = (_DIM, _PLAIN) if colour else ("", "")
    parts = (
        f"{before}{escape_controls(span.text)}{after}"
        if span.trained
        else f"{aside}{escape_controls(span.text)}{normal}"
        for span in row.spans
    )
    return f"row {row.number}, {row.tokens:,} tokens, trained: {before}like this{after}\n{''.join(parts)}"
