"""Makes the tokenised dataset of a run: reads, renders, tokenises, and writes one folder at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.contract.spec import DataSpec, RunSpec
from lorajob_runtime.data.chat.inference import stop_ids
from lorajob_runtime.data.chat.tokenizer import Tokenizer, load_tokenizer
from lorajob_runtime.data.encode import Sample
from lorajob_runtime.data.encode_dataset import EncodedDataset, encode_dataset, notes, refuse, unused_names, warnings
from lorajob_runtime.data.model_limits import foreign_id
from lorajob_runtime.data.rows.load import Loaded, load
from lorajob_runtime.data.tokens import Ids, Mask, TokenRows, TokenWriter, fingerprint
from lorajob_runtime.models import token_limits
from lorajob_runtime.models.token_limits import Bounds
from lorajob_runtime.system import atomic


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What the dataset came to; report.json holds exactly these. `sequences` is what a step's batch counts.

    `tokens` and `target_tokens` are of one epoch; the latter carry loss. `fingerprint` is a hash of the token arrays.
    `unused` is what rows have and nothing reads, with the number of rows. `first_dropped` names a row for each reason
    for which rows were left out.
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
    first_dropped: dict[str, int]
    rows_truncated: int
    sequences: int
    tokens: int
    target_tokens: int
    max_tokens: int
    eval_rows: int
    eval_rows_dropped: dict[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    """Of rows that the model was not made for."""
    unused: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {"notes": list(self.notes), "warnings": list(self.warnings)}


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
    loaded = load(spec.data)
    tokenizer = load_tokenizer(model_path, trust_remote_code=spec.model.trust_remote_code)
    try:
        with atomic.replacing_folder(folder) as draft:
            dataset = tokenise(spec, tokenizer, draft, loaded=loaded, limits=token_limits.of_folder(model_path))
            _describe(draft, dataset)
    except OSError as error:
        raise StorageError(f"cannot write the tokenised dataset to {folder}: {error.strerror or error}") from error
    return dataset.report


def tokenise(
    spec: RunSpec,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    loaded: Loaded | None = None,
    limits: Bounds = token_limits.UNKNOWN,
) -> Tokenised:
    """The rows of `spec.data` as a model with this tokenizer reads them, written to `folder` as they come.

    Raises DataError, ModelError, ConfigError, OSError.
    """
    loaded = loaded or load(spec.data)
    with TokenWriter(folder / layout.TRAIN_ROWS) as train, TokenWriter(folder / layout.EVAL_ROWS) as held_out:
        dataset = encode_dataset(
            spec,
            tokenizer,
            loaded,
            samples=spec.report.samples.count,
            train=_Written(train),
            held_out=_Written(held_out),
            bounds=limits,
        )
        refuse(dataset, spec.data)
        trained, evaluation = train.finish(), held_out.finish() if len(held_out) else None
    return Tokenised(
        train=trained,
        evaluation=evaluation,
        samples=tuple(dataset.held_out.samples or dataset.train.samples),
        # the model never says one that it has no row for
        stop_ids=tuple(each for each in stop_ids(tokenizer) if foreign_id([each], limits) is None),
        report=_report(dataset, spec.data, fingerprint(trained, evaluation)),
    )


@dataclass(frozen=True, slots=True)
class _Written:
    writer: TokenWriter

    def add(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None:
        del number
        for ids, targets in sequences:
            self.writer.add(ids, targets)


def _report(dataset: EncodedDataset, data: DataSpec, fingerprint: str) -> DataReport:
    loaded, train, held_out = dataset.loaded, dataset.train, dataset.held_out
    return DataReport(
        fingerprint=fingerprint,
        source=str(loaded.source.path),
        source_sha256=loaded.source.sha256,
        format=loaded.form.name,
        verdict=loaded.form.verdict,
        template_family=dataset.encoder.family,
        rows_read=len(loaded.source),
        rows_selected=len(loaded.selection.train),
        rows_used=train.rows,
        rows_dropped=train.dropped(),
        first_dropped=held_out.issues.first_dropped() | train.issues.first_dropped(),
        rows_truncated=train.truncated(),
        sequences=train.sequences,
        tokens=train.tokens,
        target_tokens=train.target_tokens,
        max_tokens=train.max_tokens,
        eval_rows=held_out.rows,
        eval_rows_dropped=held_out.dropped(),
        notes=notes(loaded.selection, train),
        warnings=warnings(dataset, data),
        unused=unused_names(train, held_out),
    )


def _describe(folder: Path, dataset: Tokenised) -> None:
    """Writes what goes with the tokens."""
    samples = {"stop_ids": dataset.stop_ids, "samples": [asdict(sample) for sample in dataset.samples]}
    for name, document in ((layout.SAMPLE_PROMPTS, samples), (layout.DATA_REPORT, dataset.report.to_dict())):
        (folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
