"""Runs rows of a file through form, template and tokens, and counts what became of each."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.chat.tokenizer import control_tokens
from lorajob_runtime.data.encode import Encoded, Encoder, Sample
from lorajob_runtime.data.loss_mask import cut
from lorajob_runtime.data.model_limits import foreign_id, length_warning, unreadable_reason
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text
from lorajob_runtime.data.rows.formats import Form
from lorajob_runtime.data.rows.issues import NO_ANSWER_LEFT, TOO_LONG, IssueLog, RowIssue, converted
from lorajob_runtime.data.rows.select import Selection
from lorajob_runtime.data.rows.unused import UnusedNames
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.models.token_limits import Bounds

Numbered = tuple[int, object]
"""A row of a file and its number, which counts from 0."""


class Sink(Protocol):
    """Takes the sequences that a row is trained as, in the order of the rows. `number` counts from 1."""

    def add(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None: ...


@dataclass(kw_only=True, slots=True)
class EncodedRows:
    """What a selection of rows came to: counts, and no more of the rows themselves than a person looks at."""

    sink: Sink
    rows: int = 0
    """Rows that are used."""
    sequences: int = 0
    tokens: int = 0
    target_tokens: int = 0
    max_tokens: int = 0
    samples: list[Sample] = field(default_factory=list)
    issues: IssueLog = field(default_factory=IssueLog)
    notes: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    """Notes on rows that are longer than the model was trained for."""
    unused: UnusedNames = field(default_factory=UnusedNames)
    shortest_fit: int | None = None
    """Tokens up to the first target of the row that needs the fewest: below this maxLength nothing can be trained."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens of a sequence before it is cut or dropped for its length -> sequences."""

    def dropped(self) -> dict[str, int]:
        """Reason -> rows that were left out for it."""
        return self.issues.dropped()

    def truncated(self) -> int:
        """Rows that lost their end."""
        return self.issues.counts["truncated"]

    def add(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None:
        """Counts a row that is used, and passes it on."""
        for ids, targets in sequences:
            self._count(len(ids), int(np.count_nonzero(targets[1:])))
        self._pass_on(number, sequences)

    def add_whole(self, number: int, encoded: Encoded) -> None:
        """Counts a row of one sequence that is used as it is and whose answer is its end, and passes it on."""
        tokens = len(encoded.sequences[0][0])
        self._count(tokens, tokens - encoded.answer_at)
        self._pass_on(number, encoded.sequences)

    def _count(self, tokens: int, target_tokens: int) -> None:
        self.tokens += tokens
        self.target_tokens += target_tokens
        self.max_tokens = max(self.max_tokens, tokens)

    def _pass_on(self, number: int, sequences: Sequence[tuple[Ids, Mask]]) -> None:
        self.rows += 1
        self.sequences += len(sequences)
        self.sink.add(number, sequences)

    def note_fit(self, tokens: int) -> None:
        """Notes how many tokens a row needs to have anything trained."""
        self.shortest_fit = tokens if self.shortest_fit is None else min(self.shortest_fit, tokens)


def encode_rows(
    rows: Iterable[Numbered],
    parts: tuple[EncodedRows, EncodedRows],
    *,
    selection: Selection,
    form: Form,
    encoder: Encoder,
    data: DataSpec,
    samples: int,
) -> None:
    """Encodes the rows that are meant, and cuts or drops what is longer than data.maxLength. No fault of a row raises.

    One pass, the rows in their order: what is in memory is a chunk of them. Adds to `parts` what is trained on and what
    is held out.
    """
    # what the encoder has taken and not given back
    pending: deque[tuple[int, EncodedRows]] = deque()

    def items() -> Iterator[Conversation | Text | RowError]:
        for index, row in rows:
            is_held_out = index in selection.evaluation
            if is_held_out or index in selection.train:
                pending.append((index, parts[is_held_out]))
                yield converted(form, row)

    for encoded in encoder.rows(_with_warnings(items(), pending, encoder)):
        index, found = pending.popleft()
        if isinstance(encoded, RowError):
            found.issues.add(RowIssue.of(index, encoded))
            continue
        if encoded.notes:
            found.notes.update(encoded.notes)
        if _fits(encoded, index + 1, data, found, encoder) and len(found.samples) < samples:
            found.samples += [encoded.sample] if _is_short(encoded.sample, data, encoder.bounds) else []


def _is_short(sample: Sample, data: DataSpec, bounds: Bounds) -> bool:
    """Whether a prompt is no longer than what is trained on, for which memory is planned, and the model can read it."""
    return len(sample.prompt_ids) <= data.max_length and foreign_id(sample.prompt_ids, bounds) is None


def _with_warnings(
    items: Iterable[Conversation | Text | RowError], pending: Sequence[tuple[int, EncodedRows]], encoder: Encoder
) -> Iterator[Conversation | Text | RowError]:
    """Passes rows on, and notes what a person should know of those that can be trained.

    The row that comes is the last one in `pending`.
    """
    tokens = control_tokens(encoder.tokenizer)
    control = re.compile("|".join(re.escape(token) for token in tokens) or r"(?!)")
    for item in items:
        index, found = pending[-1]
        if not isinstance(item, RowError):
            hit = next((match[0] for text in _contents(item) if (match := control.search(text))), None)
            if hit is not None:
                reason = f"has the control token {hit} in its text"
                found.issues.add(RowIssue(number=index + 1, reason=reason, severity="warning"))
                found.notes["control tokens are in the text"] += 1
            if item.aside.unused:
                found.unused.add(item.aside.unused)
            if item.aside.notes:
                found.notes.update(sorted(item.aside.notes))
        yield item


def _contents(item: Conversation | Text) -> list[str]:
    return [item.text] if isinstance(item, Text) else [message["content"] for message in item.messages]


def _fits(encoded: Encoded, number: int, data: DataSpec, found: EncodedRows, encoder: Encoder) -> bool:
    """Adds a row's sequences, cut to the limit; whether any of them has a target left and the model can read them."""
    tokens, window = len(encoded.sequences[0][0]), encoder.bounds.window
    if encoded.answer_at and tokens <= data.max_length and (window is None or tokens <= window):
        found.lengths[tokens] += 1
        found.note_fit(encoded.answer_at + 1 if data.overflow == "truncate" else tokens)
        found.add_whole(number, encoded)
        return True
    lengths = [len(ids) for ids, _ in encoded.sequences]
    found.lengths.update(lengths)
    longest = max(lengths)
    fit = min(int(targets.argmax()) + 1 for _, targets in encoded.sequences)
    found.note_fit(fit if data.overflow == "truncate" else longest)
    too_long = longest > data.max_length
    if too_long and data.overflow == "error":
        reason = f"has {longest} tokens, more than data.maxLength {data.max_length}, and data.overflow is error"
        found.issues.add(RowIssue(number=number, reason=reason, severity="error"))
        return False
    kept = [piece for ids, targets in encoded.sequences if len((piece := cut(ids, targets, data.max_length))[0])]
    if too_long and (data.overflow == "drop" or not kept):
        reason = TOO_LONG if data.overflow == "drop" else NO_ANSWER_LEFT
        found.issues.add(RowIssue(number=number, reason=reason, severity="dropped"))
        return False
    if too_long:
        reason = f"is cut from {longest} to {data.max_length} tokens"
        found.issues.add(RowIssue(number=number, reason=reason, severity="truncated"))
    if (unreadable := unreadable_reason(kept, encoder.tokenizer, encoder.bounds)) is not None:
        found.issues.add(RowIssue(number=number, reason=unreadable, severity="error"))
        return False
    if (warning := length_warning(kept, encoder.bounds)) is not None:
        found.warnings[warning] += 1
    found.add(number, kept)
    return True
