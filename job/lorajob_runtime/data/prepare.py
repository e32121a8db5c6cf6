"""Makes the tokenised dataset of a run: reads, renders, tokenises, and writes one folder at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lorajob_runtime.data.collect import Collected, collect
from lorajob_runtime.data.encode import Encoder, Sample
from lorajob_runtime.data.faults import NO_ANSWER_LEFT, TOO_LONG, nothing_left, refuse_dropped, refuse_errors
from lorajob_runtime.data.forms import Form, detect
from lorajob_runtime.data.read import Source, read
from lorajob_runtime.data.render import stop_ids
from lorajob_runtime.data.select import Selection, select
from lorajob_runtime.data.tokenizer import Tokenizer, load_tokenizer
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.data.unused import UnusedNames
from lorajob_runtime.data.wording import counted
from lorajob_runtime.exits import DataError, StorageError
from lorajob_runtime.spec import DataSpec, RunSpec

TRAIN = "train.safetensors"
EVAL = "eval.safetensors"
SAMPLES = "samples.json"
REPORT = "report.json"

EXAMPLE = "lighthouse.json"
"""The example set that is trained on when a spec names no dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What the dataset came to; report.json holds exactly these. `sequences` is what a step's batch counts.

    `tokens` and `target_tokens` are of one epoch; the latter carry loss. `fingerprint` is a hash of the token arrays.
    `unused` is what rows have and nothing reads, with the number of rows.
    """

    fingerprint: str
    source: str
    source_sha256: str
    format: str
    verdict: str
    template_family: str
    rows_read: int
    rows_selected: int
    rows_used: int
    rows_dropped: dict[str, int]
    rows_truncated: int
    sequences: int
    tokens: int
    target_tokens: int
    max_tokens: int
    eval_rows: int
    eval_rows_dropped: dict[str, int]
    notes: tuple[str, ...]
    unused: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A dataset file, the form of its rows, and which of them are meant."""

    source: Source
    form: Form
    selection: Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenised:
    """The dataset of a run, ready to be written. `evaluation` is None where no rows are held out."""

    train: TokenRows
    evaluation: TokenRows | None
    samples: tuple[Sample, ...]
    stop_ids: tuple[int, ...]
    report: DataReport


def prepare(spec: RunSpec, *, model_path: Path, folder: Path) -> DataReport:
    """Tokenises `spec.data` for the model in `model_path` and writes `folder`, replacing it whole.

    The same spec, file and tokenizer give the same bytes. Raises DataError, ModelError, ConfigError, StorageError.
    """
    tokenizer = load_tokenizer(model_path, trust_remote_code=spec.model.trust_remote_code)
    dataset = tokenise(spec, tokenizer)
    _write(folder, dataset)
    return dataset.report


def tokenise(spec: RunSpec, tokenizer: Tokenizer) -> Tokenised:
    """The rows of `spec.data` as a model with this tokenizer reads them. Raises DataError, ModelError, ConfigError."""
    data, loaded = spec.data, load(spec.data)
    encoder = Encoder(tokenizer, thinking=data.thinking)
    rows, wanted = loaded.source.rows, spec.report.samples.count

    def gather(indices: Sequence[int], field: str) -> Collected:
        found = collect(rows, indices, form=loaded.form, encoder=encoder, data=data, samples=wanted)
        refuse(found, len(indices), field, data, loaded.source.path)
        return found

    train = gather(loaded.selection.train, "data.rows")
    held_out = gather(loaded.selection.evaluation, "data.evalRows")
    trained = TokenRows.of(train.sequences)
    evaluation = TokenRows.of(held_out.sequences) if held_out.sequences else None
    return Tokenised(
        train=trained,
        evaluation=evaluation,
        samples=tuple(held_out.samples or train.samples),
        stop_ids=tuple(stop_ids(tokenizer)),
        report=_report(loaded, encoder, train, held_out, trained, evaluation),
    )


def load(data: DataSpec) -> Loaded:
    """The file that a spec names, or the example set. Raises DataError, ConfigError."""
    if data.source is None:
        example = resources.files("lorajob_runtime") / "examples" / EXAMPLE
        with resources.as_file(example) as path:
            source = read(path)
    else:
        source = read(Path(os.path.expanduser(data.source)))
    form = detect(source.rows, data)
    return Loaded(source=source, form=form, selection=select(len(source.rows), data.rows, data.eval_rows))


def refuse(found: Collected, rows: int, field: str, data: DataSpec, path: Path) -> None:
    """Raises DataError when a range of so many rows cannot be used as it is: nothing left, or too many at fault."""
    refuse_errors(found.faults, path)
    refuse_dropped(found.faults, rows, field, data.max_dropped, path)
    if rows:
        _refuse_empty(found, field, data, path)


def _refuse_empty(found: Collected, field: str, data: DataSpec, path: Path) -> None:
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


def notes(selection: Selection, found: Collected) -> tuple[str, ...]:
    """What a person should know of the rows, one line each."""
    lines = [f"{counted(count, 'row')}: {remark}" for remark, count in found.remarks.items()]
    rows = len(set(found.numbers))
    if len(found.sequences) > rows:
        lines.append(
            f"{counted(rows, 'row')}: trained as {len(found.sequences):,} sequences, "
            "because the chat template rewrites earlier turns when a turn is added"
        )
    if selection.overlap:
        lines.append(
            f"{counted(selection.overlap, 'row')}: in data.rows and data.evalRows, so held out and not trained on"
        )
    return tuple(lines)


def unused_names(*parts: Collected) -> dict[str, int]:
    """What rows have and nothing reads: column, or key of a turn, call or content part -> rows."""
    both = UnusedNames()
    for found in parts:
        both.merge(found.unused)
    return both.counts()


def _report(
    loaded: Loaded,
    encoder: Encoder,
    train: Collected,
    held_out: Collected,
    trained: TokenRows,
    evaluation: TokenRows | None,
) -> DataReport:
    return DataReport(
        fingerprint=_fingerprint(trained, evaluation),
        source=str(loaded.source.path),
        source_sha256=loaded.source.sha256,
        format=loaded.form.name,
        verdict=loaded.form.verdict,
        template_family=encoder.family,
        rows_read=len(loaded.source.rows),
        rows_selected=len(loaded.selection.train),
        rows_used=len(set(train.numbers)),
        rows_dropped=train.dropped(),
        rows_truncated=train.truncated(),
        sequences=len(trained),
        tokens=len(trained.input_ids),
        target_tokens=trained.target_tokens,
        max_tokens=int(trained.lengths.max()),
        eval_rows=len(set(held_out.numbers)),
        eval_rows_dropped=held_out.dropped(),
        notes=notes(loaded.selection, train),
        unused=unused_names(train, held_out),
    )


def _fingerprint(*parts: TokenRows | None) -> str:
    digest = hashlib.sha256()
    for rows in parts:
        if rows is None:
            continue
        digest.update(f"{len(rows)} rows, {len(rows.input_ids)} tokens\n".encode())
        for array in (rows.input_ids, rows.targets, rows.offsets):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _write(folder: Path, dataset: Tokenised) -> None:
    """Writes beside `folder` and takes its place, so that a folder that exists is whole. Raises StorageError."""
    samples = {"stop_ids": dataset.stop_ids, "samples": [asdict(sample) for sample in dataset.samples]}
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        dataset.train.save(fresh / TRAIN)
        if dataset.evaluation is not None:
            dataset.evaluation.save(fresh / EVAL)
        for name, document in ((SAMPLES, samples), (REPORT, dataset.report.to_dict())):
            (fresh / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write the tokenised dataset to {folder}: {error.strerror or error}") from error
