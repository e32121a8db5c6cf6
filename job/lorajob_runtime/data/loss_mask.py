"""Which tokens carry loss: of a conversation its answers, of a text all but its first token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorajob_runtime.data.chat.word_tokens import Tokens
from lorajob_runtime.data.tokens import Ids, Mask

_SIZE = np.dtype(np.int32).itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """An answer in stretches. `tail` is the last one before it, where that is not closed and the next answer follows:
    both may share tokens in the prompt of that one.
    """

    before: list[str]
    tail: str
    answer: list[str]
    follows: bool

    def texts(self) -> list[str]:
        """All that has to be tokenised."""
        return [*self.before, *self.answer, self.joint] if self.tail else [*self.before, *self.answer]

    @property
    def joint(self) -> str:
        """The first stretch of the answer with what stands before it, as a later prompt has both."""
        return self.tail + self.answer[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Sequences end to end: where each stops, and where in it the answer begins, 0 where it has none."""

    ids: Ids
    targets: Mask
    stops: list[int]
    answers_at: list[int]

    def __iter__(self) -> Iterator[tuple[tuple[Ids, Mask], int]]:
        """Each sequence, and where its answer begins."""
        for start, stop, answer_at in zip([0, *self.stops], self.stops, self.answers_at, strict=False):
            yield (self.ids[start:stop], self.targets[start:stop]), answer_at


def behind_prompts(sides: Sequence[Sequence[str]], known: Mapping[str, Tokens]) -> Rounds:
    """Sequences of one answer each: `sides` are a prompt, its answer, the next prompt, and so on, each in stretches."""
    told = [_tokens(side, known) for side in sides]
    lengths = np.fromiter(map(len, told), dtype=np.int64, count=len(told)) // _SIZE
    ids, targets = np.frombuffer(b"".join(told), dtype=np.int32), np.repeat(np.arange(len(told)) % 2 == 1, lengths)
    stops = np.cumsum(lengths)[1::2]
    starts = stops - lengths[::2] - lengths[1::2]
    targets[starts[starts < stops]] = False
    answers_at = np.where(lengths[1::2] > 0, lengths[::2], 0)
    return Rounds(ids=ids, targets=targets, stops=stops.tolist(), answers_at=answers_at.tolist())


def joined(pieces: Sequence[Piece], known: Mapping[str, Tokens]) -> list[tuple[Ids, Mask]]:
    """The answers of one conversation as sequences: one goes on while the next prompt begins with all of it.

    `known` are the tokens of every text. It does not begin so where the template rewrites what was said before, and
    where the end of a prompt and the beginning of its answer together are other tokens than apart.
    """
    ids = b""
    spans: list[tuple[int, int]] = []
    done: list[tuple[Ids, Mask]] = []
    for piece in pieces:
        before, said = _tokens(piece.before, known), _tokens(piece.answer, known)
        if piece.follows:
            ids += before
        else:
            if spans and not before.startswith(ids):
                done.append(_sequence(ids, spans))
                spans = []
            ids = before
        spans.append((len(ids), len(ids) + len(said)))
        if piece.tail and known[piece.joint] != known[piece.tail] + known[piece.answer[0]]:
            done.append(_sequence(ids + said, spans))
            spans = []
            ids = ids[: len(ids) - len(known[piece.tail])] + known[piece.joint]
            said = _tokens(piece.answer[1:], known)
        ids += said
    return [*done, _sequence(ids, spans)] if spans else done


def _tokens(texts: Iterable[str], known: Mapping[str, Tokens]) -> Tokens:
    return b"".join([known[text] for text in texts])


def _sequence(ids: Tokens, spans: Iterable[tuple[int, int]]) -> tuple[Ids, Mask]:
    """Tokens with their targets. `spans` are in bytes."""
    targets = np.zeros(len(ids) // _SIZE, dtype=np.bool_)
    for start, stop in spans:
        targets[start // _SIZE : stop // _SIZE] = True
    targets[:1] = False
    return np.frombuffer(ids, dtype=np.int32), targets


def whole_text(ids: Sequence[int], begin: int | None) -> tuple[Ids, Mask]:
    """A text as a sequence, trained whole. `begin` is the token that begins texts, if the tokenizer has one."""
    targets = np.ones(len(ids), dtype=np.bool_)
    targets[: _begins(ids, begin)] = False
    return np.asarray(ids, dtype=np.int32), targets


def cut(ids: Ids, targets: Mask, limit: int) -> tuple[Ids, Mask]:
    """At most `limit` tokens from the front, and nothing after the last target; empty when no target is left."""
    if 0 < len(ids) <= limit and targets[-1]:
        return ids, targets
    kept = np.flatnonzero(targets[:limit])
    length = int(kept[-1]) + 1 if len(kept) else 0
    return ids[:length], targets[:length]


def _begins(ids: Sequence[int], begin: int | None) -> int:
    """How many first tokens nothing leads to: the first, and what follows of the tokens that begin a text."""
    repeated = next((place for place, token in enumerate(ids) if token != begin), len(ids))
    return max(1, repeated)
