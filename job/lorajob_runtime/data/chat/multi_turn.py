"""Renders all answers of a conversation with as few renderings as its template allows.

Exactly, every answer takes two renderings of all that comes before it, which is quadratic in turns. Most templates only
append: then one rendering of the whole has every prompt in it, and every answer is there as it would be alone. That is
checked: the first, second, fourth, eighth … and last answer, and the first of each kind of turn, are
rendered exactly as well. A template that rewrites what was said before has each answer rendered by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lorajob_runtime.data.chat.adapt_messages import Tools
from lorajob_runtime.data.chat.template_probe import ASKED
from lorajob_runtime.data.rows.conversation import Message

_FEW = 4
"""Up to so many answers are rendered one by one: looking up as many would be the same work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of a conversation: the text before it, and the text that is trained, with the end of its turn.

    `before` is all of it, the prompt; or, where `follows`, what comes behind the answer before.
    """

    before: str
    answer: str
    reference: str
    """What the row says, for a person."""
    follows: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One answer behind its whole prompt. `written` is how a finished conversation has it right behind the prompt;
    None where it does not. `notes` are what a person should know of it.
    """

    prompt: str
    answer: str
    written: str | None
    reference: str
    notes: tuple[str, ...] = ()

    def answered(self) -> Answer:
        """The answer alone."""
        return Answer(before=self.prompt, answer=self.answer, reference=self.reference)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedAnswers:
    """Answers in order, the text before the last one, and what a person should know of them."""

    answers: list[Answer]
    last_prompt: str
    notes: dict[str, None]


class TurnRenderer(Protocol):
    """A chat template. Both raise what the template raises; `turn` RowError as well."""

    header: str
    """What a prompt ends in, to have the next answer."""
    end_of_turn: str

    def finished(self, messages: Sequence[Message], tools: Tools) -> str:
        """A conversation that waits for no answer."""

    def turn(self, messages: Sequence[Message], tools: Tools) -> Turn:
        """The last message as an answer to those before."""


def render(template: TurnRenderer, messages: Sequence[Message], tools: Tools, wanted: Sequence[int]) -> RenderedAnswers:
    """The answers at the places `wanted`. Raises as `template.turn` does."""
    found = _at_once(template, messages, tools, wanted) if len(wanted) > _FEW else None
    return found or _one_by_one(template.turn(messages[: place + 1], tools) for place in wanted)


def _one_by_one(turns: Iterator[Turn]) -> RenderedAnswers:
    answers: list[Answer] = []
    notes: dict[str, None] = {}
    said = prompt = ""
    for turn in turns:
        prompt, follows = turn.prompt, bool(answers) and turn.prompt.startswith(said)
        before = prompt[len(said) :] if follows else prompt
        answers.append(Answer(before=before, answer=turn.answer, reference=turn.reference, follows=follows))
        notes |= dict.fromkeys(turn.notes)
        said = prompt + turn.answer
    return RenderedAnswers(answers=answers, last_prompt=prompt, notes=notes)


def _at_once(
    template: TurnRenderer, messages: Sequence[Message], tools: Tools, wanted: Sequence[int]
) -> RenderedAnswers | None:
    """None where one rendering does not do."""
    marks = [mark for mark in (template.header, template.end_of_turn) if mark]
    if any(mark in message["content"] for message in messages if message["role"] != "assistant" for mark in marks):
        return None
    try:
        finished = template.finished(messages[: wanted[-1] + 1], tools)
        located = _located(template, finished, messages[: wanted[-1] + 1], tools)
    except Exception:  # noqa: BLE001 - one by one it shows which turn the template refuses
        return None
    if located is None:
        return None
    starts = {place: start for place, (start, _) in located.items()}
    for place in _looked_up(messages, wanted):
        exact, (start, alone) = template.turn(messages[: place + 1], tools), located[place]
        if exact.answer != alone.answer or exact.prompt != finished[:start]:
            return None
    answers: list[Answer] = []
    notes: dict[str, None] = {}
    end = None
    for place in wanted:
        start, turn = located[place]
        follows = end is not None and end <= start
        before = finished[end if follows else 0 : start]
        answers.append(Answer(before=before, answer=turn.answer, reference=turn.reference, follows=follows))
        notes |= dict.fromkeys(turn.notes)
        end = start + len(turn.answer) if finished.startswith(turn.answer, start) else None
    return RenderedAnswers(answers=answers, last_prompt=finished[: starts[wanted[-1]]], notes=notes)


def _located(
    template: TurnRenderer, finished: str, messages: Sequence[Message], tools: Tools
) -> dict[int, tuple[int, Turn]] | None:
    """Where in the whole text each answer begins, and the answer as it is alone; None when one is not there so."""
    found: dict[int, tuple[int, Turn]] = {}
    at = 0
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = template.turn([ASKED, message], tools[:1] if tools else None)
        if turn.written is None:
            return None
        sought = template.header or turn.written
        at = finished.find(sought, at) + len(template.header)
        if at < len(template.header) or not finished.startswith(turn.written, at):
            return None
        found[place] = at, turn
        at += len(turn.written)
    return found


def _looked_up(messages: Sequence[Message], wanted: Sequence[int]) -> list[int]:
    """The places where an answer is rendered exactly, too."""
    chosen = {wanted[-1]}
    kinds = set()
    for number, place in enumerate(wanted, start=1):
        following = messages[place + 1]["role"] if place + 1 < len(messages) else None
        shape = frozenset(key for key, value in messages[place].items() if value)
        kind = (messages[place - 1]["role"], shape, following)
        if number & (number - 1) == 0 or kind not in kinds:
            chosen.add(place)
        kinds.add(kind)
    return sorted(chosen)
