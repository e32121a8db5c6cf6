"""Conversations and texts as token sequences with their targets.

A conversation is one sequence as long as the template leaves what was said before alone. Some templates rewrite it when
a turn is added (a thought goes from the history); then the next answer begins a sequence of its own, with the history
before it as inference has it. So every answer is trained exactly once, and behind exactly what inference sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.data.chat.chat_template import ChatTemplate, Rendered, ThinkingMode
from lorajob_runtime.data.chat.inference import stop_ids
from lorajob_runtime.data.chat.one_round import Round
from lorajob_runtime.data.chat.tokenizer import Tokenizer, decode, encode, start_ids
from lorajob_runtime.data.loss_mask import whole_text
from lorajob_runtime.data.model_limits import foreign_id
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text, too_deep
from lorajob_runtime.data.segments import Segments
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.models.token_limits import UNKNOWN, Bounds

CHUNK_ROWS = 512
"""Rows that are tokenised together: enough to keep every core busy."""

CHUNK_CHARACTERS = 2_000_000
"""Characters that are tokenised together, few enough to hold their tokens as Python lists."""

_TEXT_SAMPLE_TOKENS = 32

_Row = Round | Rendered | Text | RowError
"""A row before it is tokenised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a person can compare: a prompt, what inference sends for it, and the dataset's answer."""

    prompt: str
    prompt_ids: list[int]
    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One row: its sequences, uncut, its last answer as a sample, and what a person should know of it."""

    sequences: list[tuple[Ids, Mask]]
    sampled: Callable[[], Sample]
    """Makes the sample, which only the first few rows are asked for."""
    notes: tuple[str, ...] = ()
    answer_at: int = 0
    """Of a sequence that stands alone the place from which on all tokens are targets, where that is known, and that the
    model has all of its tokens; else 0.
    """

    @property
    def sample(self) -> Sample:
        """The last answer, made again at each call."""
        return self.sampled()


class Encoder:
    """Encodes rows for one model. Its chat template is only asked for when a conversation comes."""

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool, bounds: Bounds = UNKNOWN) -> None:
        self.tokenizer = tokenizer
        self.bounds = bounds
        self._thinking = thinking
        self._template: ChatTemplate | None = None

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template. Raises ModelError."""
        if self._template is None:
            self._template = ChatTemplate(self.tokenizer, thinking=self._thinking)
        return self._template

    @property
    def has_template(self) -> bool:
        """Whether a conversation came."""
        return self._template is not None

    @property
    def family(self) -> str:
        """The template's family; none when only texts came."""
        return self._template.family.name if self._template else "none"

    @property
    def thinking_mode(self) -> ThinkingMode:
        """The template's; none when only texts came."""
        return self._template.thinking_mode if self._template else "none"

    def rows(self, items: Iterable[Conversation | Text | RowError]) -> Iterator[Encoded | RowError]:
        """Each item encoded, in order; a RowError comes out as it went in, or is what the template made of a row."""
        chunk: list[tuple[str, _Row]] = []
        characters = 0
        for item in items:
            row = self._rendered(item)
            chunk.append(("" if isinstance(row, Round) else _asked(item), row))
            characters += _characters(row)
            if len(chunk) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
                yield from self._chunk(chunk)
                chunk, characters = [], 0
        yield from self._chunk(chunk)

    def _chunk(self, rows: Sequence[tuple[str, _Row]]) -> Iterator[Encoded | RowError]:
        conversations = [row.answers for _, row in rows if isinstance(row, Rendered)]
        sequences = self._segments.sequences(conversations) if conversations else iter(())
        found_rounds = [row for _, row in rows if isinstance(row, Round)]
        rounds = iter(self._rounds(found_rounds)) if found_rounds else iter(())
        texts = iter(encode(self.tokenizer, [row.text for _, row in rows if isinstance(row, Text)]))
        for asked, row in rows:
            if isinstance(row, Round):
                sequence, answer_at = next(rounds)
                sampled = partial(_sample, row.asked, row.reference, *sequence)
                yield Encoded(sequences=[sequence], sampled=sampled, answer_at=answer_at)
            elif isinstance(row, RowError):
                yield row
            elif isinstance(row, Text):
                yield self._text(row.text, next(texts))
            else:
                found = next(sequences)
                sampled = partial(_sample, asked, row.answers[-1].reference, *found[-1])
                yield Encoded(sequences=found, sampled=sampled, notes=row.notes)

    def _rounds(self, rounds: Sequence[Round]) -> Iterator[tuple[tuple[Ids, Mask], int]]:
        found = self._segments.rounds(rounds)
        is_readable = foreign_id(found.ids, self.bounds) is None
        return ((sequence, answer_at if is_readable else 0) for sequence, answer_at in found)

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.tokenizer, self.template.stop_tokens())

    def _rendered(self, item: Conversation | Text | RowError) -> _Row:
        if isinstance(item, RowError):
            return item
        if isinstance(item, Text):
            return item if _encodable([item.text]) else _NOT_UNICODE
        try:
            if (found := self.template.one_round(item, self._segments.ends)) is not None:
                return found if _encodable((*found.before, *found.answer)) else _NOT_UNICODE
            rendered = self.template.conversation(item)
        except RowError as fault:
            return fault
        except RecursionError:
            return too_deep()
        texts = (text for answer in rendered.answers for text in (answer.before, answer.answer))
        return rendered if _encodable(texts) else _NOT_UNICODE

    def _text(self, text: str, ids: list[int]) -> Encoded:
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ModelError("the model's tokenizer has no end token, so a row of text cannot end")
        begin = start_ids(self.tokenizer)
        whole = ids if ids[: len(begin)] == begin else [*begin, *ids]
        if not text.rstrip().endswith(self._ends):
            whole = [*whole, end]
        sampled = partial(_text_sample, self.tokenizer, whole)
        return Encoded(sequences=[whole_text(whole, self.tokenizer.bos_token_id)], sampled=sampled)

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        """What a text may end in so that it needs no end token: one, or what ends an answer in the chat template."""
        ids = {self.tokenizer.eos_token_id, *stop_ids(self.tokenizer)}
        return tuple(decode(self.tokenizer, [index]) for index in ids)


def _sample(asked: str, reference: str, ids: Ids, targets: Mask) -> Sample:
    """The last answer of a sequence, and what inference sends for it."""
    others = np.flatnonzero(~targets)
    start = int(others[-1]) + 1 if len(others) else 0
    return Sample(prompt=asked, prompt_ids=ids[:start].tolist(), reference=reference)


def _text_sample(tokenizer: Tokenizer, whole: list[int]) -> Sample:
    """The beginning of a text as a prompt, and how it goes on."""
    begun = whole[: min(_TEXT_SAMPLE_TOKENS, max(1, len(whole) // 2))]
    return Sample(
        prompt=decode(tokenizer, begun), prompt_ids=begun, reference=decode(tokenizer, whole[len(begun) : -1])
    )


def _asked(item: Conversation | Text | RowError) -> str:
    messages = item.messages if isinstance(item, Conversation) else []
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return asked[-1] if asked else ""


def _characters(row: _Row) -> int:
    if isinstance(row, Round):
        return sum(map(len, row.before)) + sum(map(len, row.answer))
    if isinstance(row, Text):
        return len(row.text)
    return sum(len(answer.before) + len(answer.answer) for answer in row.answers) if isinstance(row, Rendered) else 0


_NOT_UNICODE = RowError("has text with half of a character in it, which is not valid Unicode")


def _encodable(texts: Iterable[str]) -> bool:
    """JSON can hold halves of a character, which no tokenizer takes."""
    try:
        for text in texts:
            if not text.isascii():
                text.encode()
    except UnicodeEncodeError:
        return False
    return True
