"""Splits what a model says into its reasoning and its answer, without the marks around them.

Models of several families write `<think>…</think>` first, and some put the answer between `<answer>` and `</answer>`.
Marks count where such a part can begin and end only: an answer that speaks of <think> keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from lorajob_runtime.models.chat_families import CLOSE_THOUGHT, OPEN_THOUGHT

Kind = Literal["reasoning", "answer"]

OPEN_ANSWER, CLOSE_ANSWER = "<answer>", "</answer>"
MARK_TOKENS = 8
"""In so many last tokens of a prompt a mark at its end is seen, also where the vocabulary has it letter by letter."""
MARKS = (OPEN_THOUGHT, CLOSE_THOUGHT, OPEN_ANSWER, CLOSE_ANSWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A finished answer. `reasoning` is empty where there was none; an answer that never came is empty."""

    reasoning: str
    answer: str


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends in an open thought, so that what the model says begins inside it."""
    return prompt.rstrip().endswith(OPEN_THOUGHT)


def split(text: str, *, thinking: bool = False) -> Reply:
    """The parts of a whole answer. `thinking`: its prompt has opened the thought."""
    splitter = Splitter(thinking=thinking)
    parts = [*splitter.feed(text), *splitter.end()]
    return Reply(
        reasoning="".join(piece for kind, piece in parts if kind == "reasoning").strip(),
        answer="".join(piece for kind, piece in parts if kind == "answer").strip(),
    )


_END_ALONE = re.compile(rf"^{CLOSE_THOUGHT}[ \t]*$", re.MULTILINE)


def apart(text: str) -> Reply:
    """The thought that a written answer begins with, and the answer as it stands behind it.

    Some datasets leave the opening mark out, as the prompts of some models have it: then the closing one counts where
    it has a line of its own. An answer that only speaks of the marks has no thought.
    """
    begun = text.lstrip()
    if begun.startswith(OPEN_THOUGHT):
        thought, closed, answer = begun.removeprefix(OPEN_THOUGHT).partition(CLOSE_THOUGHT)
        if closed:
            return Reply(reasoning=thought.strip("\n"), answer=answer.lstrip("\n"))
        return Reply(reasoning="", answer=text)
    end = _END_ALONE.search(text)
    if end is None or OPEN_THOUGHT in text[: end.start()]:
        return Reply(reasoning="", answer=text)
    return Reply(reasoning=text[: end.start()].strip("\n"), answer=text[end.end() :].lstrip("\n"))


@dataclass(kw_only=True, slots=True)
class Splitter:
    """The same for an answer that comes in pieces. What may be the beginning of a mark is held back."""

    thinking: bool = False
    _held: str = field(default="", repr=False)
    _said: bool = False
    """Whether anything but blanks has been said since the last mark."""
    _marked: bool = False
    """Whether the answer stands between marks of its own."""
    _over: bool = False

    def feed(self, piece: str) -> Iterator[tuple[Kind, str]]:
        """Parts of the answer and what they are, as far as that is certain."""
        self._held += piece
        while self._held and not self._over:
            marks = self._possible()
            found = min((place for mark in marks if (place := self._held.find(mark)) >= 0), default=None)
            keep = self._partial(marks) if found is None else len(self._held) - found
            yield from self._say(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            mark = next((mark for mark in self._possible() if self._held.startswith(mark)), None)
            if mark is None:
                if found is None:
                    return
                # an opening mark behind words is one of them
                yield from self._say(self._held[0])
                self._held = self._held[1:]
            else:
                self._held = self._held[len(mark) :]
                self._pass(mark)

    def end(self) -> Iterator[tuple[Kind, str]]:
        """What was held back and was no mark after all."""
        if not self._over:
            yield from self._say(self._held)
        self._held = ""

    def _possible(self) -> tuple[str, ...]:
        if self.thinking:
            return (CLOSE_THOUGHT,)
        opening = () if self._said or self._marked else (OPEN_THOUGHT, OPEN_ANSWER)
        return (*opening, CLOSE_ANSWER) if self._marked else opening

    def _partial(self, marks: tuple[str, ...]) -> int:
        """How many of the last characters may be the beginning of a mark."""
        lengths = (
            length
            for mark in marks
            for length in range(min(len(mark) - 1, len(self._held)), 0, -1)
            if self._held.endswith(mark[:length])
        )
        return max(lengths, default=0)

    def _say(self, text: str) -> Iterator[tuple[Kind, str]]:
        if text:
            self._said = self._said or bool(text.strip())
            yield ("reasoning" if self.thinking else "answer"), text

    def _pass(self, mark: str) -> None:
        self.thinking = mark == OPEN_THOUGHT
        self._marked = mark == OPEN_ANSWER
        self._over = mark == CLOSE_ANSWER
        self._said = False
