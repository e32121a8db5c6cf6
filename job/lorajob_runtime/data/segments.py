"""Splits the texts of a conversation behind the tokens that end turns, so that each stretch is tokenised once.

A tokenizer splits a text at its control tokens before anything else. So behind one that ends turns the rest of a text
becomes the same tokens with any text before it, and the turns of a conversation need not be tokenised again with every
answer. Whether a tokenizer keeps to that is tried at the start; one that does not gets every prompt whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lorajob_runtime.data.chat.multi_turn import Answer
from lorajob_runtime.data.chat.one_round import Round
from lorajob_runtime.data.chat.tokenizer import Tokenizer, added_tokens, encode
from lorajob_runtime.data.chat.word_tokens import WordTokens
from lorajob_runtime.data.loss_mask import Piece, Rounds, behind_prompts, joined
from lorajob_runtime.data.tokens import Ids, Mask

_BEFORE = ("a", "a ", "a\n", "。")
_BEHIND = ("a", " a", "\na", "\n\n a", "a\n", "。", "1", "\n")


class Segments:
    """Splits texts behind the tokens `ends` where this tokenizer allows it."""

    def __init__(self, tokenizer: Tokenizer, ends: Iterable[str]) -> None:
        self._words = WordTokens(tokenizer)
        known = set(added_tokens(tokenizer).values())
        self.ends = tuple(end for end in ends if end in known and _separates(tokenizer, end))
        self._pattern = re.compile("|".join(re.escape(end) for end in self.ends) or r"(?!)")

    def split(self, text: str) -> list[str]:
        """The text in stretches, each but the last one with an end token behind it."""
        edges = [0, *(match.end() for match in self._pattern.finditer(text))]
        stretches = [text[start:stop] for start, stop in zip(edges, [*edges[1:], len(text)], strict=True)]
        return stretches if stretches[-1] or len(stretches) == 1 else stretches[:-1]

    def separates(self, text: str) -> bool:
        """Whether what follows a text can be tokenised by itself."""
        return bool(self.ends) and text.endswith(self.ends)

    def sequences(self, conversations: Sequence[Sequence[Answer]]) -> Iterator[list[tuple[Ids, Mask]]]:
        """Each conversation's answers as sequences, the texts of all of them tokenised together."""
        split = [self._pieces(answers) for answers in conversations]
        texts = list(dict.fromkeys(text for pieces in split for piece in pieces for text in piece.texts()))
        known = dict(zip(texts, self._words.tokens(texts), strict=True))
        for pieces in split:
            yield joined(pieces, known)

    def rounds(self, rounds: Sequence[Round]) -> Rounds:
        """Each round as a sequence, all of them in one array."""
        texts = list(dict.fromkeys([text for each in rounds for text in (*each.before, *each.answer)]))
        known = dict(zip(texts, self._words.tokens(texts), strict=True))
        return behind_prompts([side for each in rounds for side in (each.before, each.answer)], known)

    def _separable(self, answers: Sequence[Answer]) -> Iterator[Answer]:
        """The same answers, each with its whole prompt where the one before ends in no token that separates."""
        said: list[str] = []
        for answer in answers:
            if not answer.follows:
                said = []
            whole = answer.follows and not self.separates(said[-1])
            said += [answer.before, answer.answer]
            yield replace(answer, before="".join(said[:-1]), follows=False) if whole else answer

    def _pieces(self, answers: Sequence[Answer]) -> list[Piece]:
        if len(answers) == 1:
            return [self._piece(answers[0], goes_on=False)]
        separable = list(self._separable(answers))
        goes_on = [answer.follows for answer in separable[1:]]
        return list(map(self._piece, separable, [*goes_on, False]))

    def _piece(self, answer: Answer, goes_on: bool) -> Piece:
        before, said = self.split(answer.before), self.split(answer.answer)
        tail = before[-1] if goes_on and not self.separates(before[-1]) else ""
        return Piece(before=before, tail=tail, answer=said, follows=answer.follows)


def _separates(tokenizer: Tokenizer, end: str) -> bool:
    """Whether texts become the same tokens together as apart, split behind this token."""
    pairs = [(before + end, behind) for before in _BEFORE for behind in (*_BEHIND, end)]
    whole = encode(tokenizer, [before + behind for before, behind in pairs])
    first, second = (encode(tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
    return all(ids == a + b for ids, a, b in zip(whole, first, second, strict=True))
