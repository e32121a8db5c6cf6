"""Conversations and texts as token sequences with their targets.

A conversation is one sequence as long as the template leaves what was said before alone. Some templates rewrite it when
a turn is added (a thought goes from the history); then the next answer begins a sequence of its own, with the history
before it as inference has it. So every answer is trained exactly once, and behind exactly what inference sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lorajob_runtime.bounds import UNKNOWN, Bounds
from lorajob_runtime.data.conversation import Conversation, RowError, Text
from lorajob_runtime.data.render import Answer, ChatTemplate, ThinkingMode
from lorajob_runtime.data.tokenizer import Tokenizer, decode, encode, start_ids
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.data.wording import brief
from lorajob_runtime.exits import ModelError

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt, and of the answer to it."""

CHUNK_ROWS = 512
"""Rows that are tokenised together: enough to keep every core busy, few enough to hold as Python lists."""

_TEXT_SAMPLE_TOKENS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a person can compare: a prompt, what inference sends for it, and the dataset's answer."""

    prompt: str
    prompt_ids: list[int]
    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One row: its sequences, uncut, and its last answer as a sample."""

    sequences: list[tuple[Ids, Mask]]
    sample: Sample


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
    def family(self) -> str:
        """The template's family; none when only texts came."""
        return self._template.family.name if self._template else "none"

    @property
    def thinking_mode(self) -> ThinkingMode:
        """The template's; none when only texts came."""
        return self._template.thinking_mode if self._template else "none"

    def rows(self, items: Iterable[Conversation | Text | RowError]) -> Iterator[Encoded | RowError]:
        """Each item encoded, in order; a RowError comes out as it went in, or is what the template made of a row."""
        source = iter(items)
        while chunk := list(islice(source, CHUNK_ROWS)):
            yield from self._chunk(chunk)

    def _chunk(self, items: list[Conversation | Text | RowError]) -> Iterator[Encoded | RowError]:
        rendered = [self._rendered(item) for item in items]
        texts = [text for parts in rendered if not isinstance(parts, RowError) for text in _texts(parts)]
        ids = iter(encode(self.tokenizer, texts))
        for item, parts in zip(items, rendered, strict=True):
            if isinstance(parts, RowError):
                yield parts
            elif isinstance(parts, str):
                yield self._text(next(ids))
            else:
                pairs = [(next(ids), next(ids)) for _ in parts]
                yield Encoded(sequences=join(pairs), sample=_sample(item, parts[-1], pairs[-1]))

    def _rendered(self, item: Conversation | Text | RowError) -> list[Answer] | str | RowError:
        if isinstance(item, RowError):
            return item
        if isinstance(item, Text):
            return item.text if _encodable([item.text]) else _NOT_UNICODE
        template = self.template
        try:
            answers = template.answers(item.messages, item.tools)
        except RowError as fault:
            return fault
        except Exception as error:  # noqa: BLE001 - a template is a program of the model's, and may raise anything
            return RowError(f"is refused by the model's chat template: {brief(error, 160)}")
        return answers if _encodable(_texts(answers)) else _NOT_UNICODE

    def _text(self, ids: list[int]) -> Encoded:
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ModelError("the model's tokenizer has no end token, so a row of text cannot end")
        whole = [*start_ids(self.tokenizer), *ids, end]
        targets = np.ones(len(whole), dtype=np.bool_)
        targets[0] = False
        begun = whole[: min(_TEXT_SAMPLE_TOKENS, max(1, len(whole) // 2))]
        sample = Sample(
            prompt=decode(self.tokenizer, begun),
            prompt_ids=begun,
            reference=decode(self.tokenizer, whole[len(begun) : -1]),
        )
        return Encoded(sequences=[(np.asarray(whole, dtype=np.int32), targets)], sample=sample)


def join(pairs: Iterable[Pair]) -> list[tuple[Ids, Mask]]:
    """The answers of one conversation as sequences: one goes on while the next prompt begins with all of it."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    done: list[tuple[Ids, Mask]] = []
    for prompt, answer in pairs:
        if ids and prompt[: len(ids)] != ids:
            done.append(_sequence(ids, spans))
            spans = []
        ids = prompt + answer
        spans.append((len(prompt), len(ids)))
    return [*done, _sequence(ids, spans)]


def cut(ids: Ids, targets: Mask, limit: int) -> tuple[Ids, Mask]:
    """At most `limit` tokens from the front, and nothing after the last target; empty when no target is left."""
    kept = np.flatnonzero(targets[:limit])
    length = int(kept[-1]) + 1 if len(kept) else 0
    return ids[:length], targets[:length]


def _sequence(ids: list[int], spans: Iterable[tuple[int, int]]) -> tuple[Ids, Mask]:
    targets = np.zeros(len(ids), dtype=np.bool_)
    for start, stop in spans:
        targets[start:stop] = True
    targets[:1] = False
    return np.asarray(ids, dtype=np.int32), targets


def _sample(item: Conversation | Text | RowError, answer: Answer, pair: Pair) -> Sample:
    messages = item.messages if isinstance(item, Conversation) else []
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return Sample(prompt=asked[-1] if asked else "", prompt_ids=pair[0], reference=answer.reference)


def _texts(parts: Sequence[Answer] | str) -> list[str]:
    if isinstance(parts, str):
        return [parts]
    return [text for part in parts for text in (part.prompt, part.answer)]


_NOT_UNICODE = RowError("text that is not valid Unicode", droppable=True)


def _encodable(texts: Iterable[str]) -> bool:
    """JSON can hold halves of a character, which no tokenizer takes."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True
