"""Conversations of one question and its answer, put together from the skeletons of their prompt and of their whole.

Most rows are nothing else. What `ChatTemplate.turn` finds out for each of them (that the whole goes on from the prompt,
that nothing said is missing, where the answer ends) follows from the skeletons, once for all rows that fit them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lorajob_runtime.data.chat.spliced_texts import SplicedTexts
from lorajob_runtime.data.chat.traced_rendering import Part, Parts, Skeleton, answered, joined
from lorajob_runtime.data.rows.conversation import Conversation
from lorajob_runtime.models.chat_families import OPEN_THOUGHT

_ROLES = (("user", "assistant"), ("system", "user", "assistant"))
_MISSES_MAX = 10_000
"""Rows that no plan fitted, after which none is looked for: a template that has none costs nothing then."""
_MARK = OPEN_THOUGHT.removeprefix("<")
"""What is in both marks of a thought."""


class Round(NamedTuple):
    """A row's prompt and its answer in stretches of text, each but the last one of a side with an end token behind it.

    `asked` is the question and `reference` the answer as the row has them.
    """

    before: list[str]
    answer: list[str]
    asked: str
    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """How the contents of a round, the answer last, become its texts."""

    whole: Skeleton
    """Its `made` are the values, and its `asked` all that must be answered so."""
    before: tuple[str | Parts, ...]
    answer: tuple[str | Parts, ...]
    same: tuple[tuple[int, int], ...]
    """Values that must be the same for nothing of what is said to be cut."""

    def round(self, contents: Sequence[str]) -> Round | None:
        """The round with these contents; None for one that takes another way through the template."""
        values = list(contents)
        for parts, method, arguments in self.whole.made:
            values.append(getattr(joined(parts, values), method)(*arguments))
        for parts, method, arguments, answer in self.whole.asked:
            if answered(joined(parts, values), method, arguments) is not answer:
                return None
        if any(values[one] != values[other] for one, other in self.same):
            return None
        return Round(
            [part if part.__class__ is str else joined(part, values) for part in self.before],  # type: ignore[arg-type]
            [part if part.__class__ is str else joined(part, values) for part in self.answer],  # type: ignore[arg-type]
            contents[-2],
            contents[-1],
        )


class RoundPlans:
    """The plans of one template, found when rounds come."""

    def __init__(
        self,
        spliced: SplicedTexts,
        *,
        parts: bool,
        for_prompt: Mapping[str, Any],
        for_whole: Mapping[str, Any],
        end_of_turn: str,
        after_turn: str,
        has_system: bool,
    ) -> None:
        """`for_prompt` and `for_whole` are the options that the template gets, `has_system`: it has a system turn."""
        self._spliced = spliced
        self._parts = parts
        self._for_prompt, self._for_whole = for_prompt, for_whole
        self._end_of_turn, self._after_turn = end_of_turn, after_turn
        self._roles = frozenset(roles for roles in _ROLES if has_system or "system" not in roles)
        self._plans: dict[tuple[str, ...], list[RoundPlan]] = {}
        self._left = _MISSES_MAX

    def round(self, conversation: Conversation, ends: Sequence[str]) -> Round | None:
        """A conversation as a round, split behind `ends`; None for one that has to be rendered."""
        messages = conversation.messages
        if self._left == 0 or conversation.tools or conversation.unanswered or ends[:1] != (self._end_of_turn,):
            return None
        roles = tuple([message["role"] for message in messages])
        if roles not in self._roles or not all(len(each) == 2 and each["content"].strip() for each in messages):
            return None
        contents = [message["content"] for message in messages]
        if any(_MARK in content for content in contents):
            return None
        for known in self._plans.get(roles, ()):
            if (fitting := known.round(contents)) is not None:
                return fitting
        self._left -= 1
        self._plans[roles] = [
            found
            for prompt in self._spliced.skeletons(messages[:-1], parts=self._parts, options=self._for_prompt)
            for whole in self._spliced.skeletons(messages, parts=self._parts, options=self._for_whole)
            if (found := plan(prompt, whole, contents=len(roles), after_turn=self._after_turn, ends=ends)) is not None
        ]
        return None


def plan(prompt: Skeleton, whole: Skeleton, *, contents: int, after_turn: str, ends: Sequence[str]) -> RoundPlan | None:
    """The plan of a shape with so many contents; None where its answer does not simply follow its prompt.

    `after_turn` is what the template writes behind an end of turn, `ends` are the tokens that a text may be split
    behind, the end of turn first.
    """
    places = _places(prompt, whole, contents)
    if places is None:
        return None
    before = tuple(part if isinstance(part, str) else places[part] for part in prompt.output)
    rest = _behind(whole.output, before)
    if rest is None or not rest or not isinstance(rest[-1], str):
        return None
    if not rest[-1].endswith(ends[0] + after_turn):
        return None
    answer = (*rest[:-1], rest[-1].removesuffix(after_turn))
    answers = _shown(contents - 1, answer, whole, contents)
    if answers is None or any(_shown(each, before, whole, contents) is None for each in range(contents - 1)):
        return None
    asked = dict.fromkeys((*whole.asked, *((_moved(step[0], places), *step[1:]) for step in prompt.asked)))
    return RoundPlan(
        whole=Skeleton(output=whole.output, made=whole.made, asked=tuple(asked)),
        before=tuple(_stretches(before, ends)),
        answer=tuple(_stretches(answer, ends)),
        same=() if answers == contents - 1 else ((answers, contents - 1),),
    )


def _places(prompt: Skeleton, whole: Skeleton, contents: int) -> dict[int, int] | None:
    """The numbers that the prompt's values have in the whole; None where one is not there."""
    places = {number: number for number in range(contents - 1)}
    made = {step: contents + number for number, step in reversed(list(enumerate(whole.made)))}
    for number, (parts, method, arguments) in enumerate(prompt.made, start=contents - 1):
        found = made.get((_moved(parts, places), method, arguments))
        if found is None:
            return None
        places[number] = found
    return places


def _moved(parts: Parts, places: dict[int, int]) -> Parts:
    return tuple(part if isinstance(part, str) else places[part] for part in parts)


def _behind(parts: Parts, begin: Parts) -> Parts | None:
    """What parts have behind others that they begin with; None where they do not."""
    if not begin or len(parts) < len(begin) or parts[: len(begin) - 1] != begin[:-1]:
        return None
    last, rest = parts[len(begin) - 1], parts[len(begin) :]
    if last == begin[-1]:
        return rest
    if isinstance(last, str) and isinstance(begin[-1], str) and last.startswith(begin[-1]):
        return (last[len(begin[-1]) :], *rest)
    return None


def _shown(content: int, parts: Parts, whole: Skeleton, contents: int) -> int | None:
    """The value by which a content is there: itself, or itself without blanks at its ends."""
    if content in parts:
        return content
    for number, (of, _, arguments) in enumerate(whole.made, start=contents):
        blank = not arguments or arguments[0] is None or not arguments[0].strip()
        if of == (content,) and number in parts and blank:
            return number
    return None


def _stretches(parts: Parts, ends: Sequence[str]) -> Iterator[str | Parts]:
    """Parts split behind end tokens of the constants; a stretch without contents as its text."""
    stretch: list[Part] = []
    for part in parts:
        while isinstance(part, str):
            edges = [part.find(end) + len(end) for end in ends if end in part]
            if not edges:
                break
            stretch.append(part[: min(edges)])
            yield _stretch(stretch)
            stretch, part = [], part[min(edges) :]
        if part != "":
            stretch.append(part)
    if stretch:
        yield _stretch(stretch)


def _stretch(parts: Sequence[Part]) -> str | Parts:
    return "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else tuple(parts)
