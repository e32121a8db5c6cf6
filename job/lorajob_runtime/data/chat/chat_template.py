"""Conversations as text, through the model's own chat template.

The rule: before an answer, training has exactly the tokens that inference sends for it. So both ask the same function
for the prompt, and the answer is what the template adds to it, up to and with the end of the turn. Of every answer it
is checked that it contains what the row says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.text import truncate
from lorajob_runtime.data.chat import lost_content, multi_turn, template_probe
from lorajob_runtime.data.chat.adapt_messages import LOST_THOUGHT, Thoughts, Tools, adapt
from lorajob_runtime.data.chat.completion import common, completion
from lorajob_runtime.data.chat.lost_content import lost_notes, missing_part, said_in
from lorajob_runtime.data.chat.multi_turn import Answer, Turn
from lorajob_runtime.data.chat.one_round import Round, RoundPlans
from lorajob_runtime.data.chat.reasoning import opens_thought
from lorajob_runtime.data.chat.render_function import has_own, render_function, tokens_of
from lorajob_runtime.data.chat.spliced_texts import SplicedTexts
from lorajob_runtime.data.chat.template_probe import ANSWER, ANSWERED, ASKED
from lorajob_runtime.data.chat.template_source import template_source, with_fixed_clock
from lorajob_runtime.data.chat.tokenizer import Tokenizer, added_tokens, control_tokens, encode
from lorajob_runtime.data.rows.conversation import Conversation, Message, RowError
from lorajob_runtime.models import chat_families
from lorajob_runtime.models.chat_families import SWITCH

ThinkingMode = Literal["none", "switch", "always"]
"""No such mode, one that can be switched, or one that cannot be turned off; as in the catalog."""

_ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
"""What base models end a document with; instruct models made from them may still do it."""

_STAND_IN = "harbourstandin"
"""A placeholder for an answer that the template would take for something else."""

_TURN = "turn"
_UNKNOWN_TO_TEMPLATES = frozenset({LOST_THOUGHT, _TURN, "trained"})
_PLAIN = _UNKNOWN_TO_TEMPLATES | {"role", "content"}
"""The keys of a message of which a template sees no more than who speaks and what is said."""

UNANSWERED = "what follows the last answer is left out"
GREETING = "what the assistant says before the first question is not trained"
EMPTY_THOUGHT = "the model thinks before every answer, so an answer without a thought is trained behind an empty one"

TRAINING_MOMENT = datetime(2025, 1, 1, tzinfo=UTC)
"""What templates with a clock show in training: the same data must give the same tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """The answers of a conversation that are trained, in order, and what a person should know of it."""

    answers: list[Answer]
    notes: tuple[str, ...]


class ChatTemplate:
    """A tokenizer's chat template with the thinking switch set, at a fixed moment or, with None, at the present one.

    Raises ModelError when the tokenizer has none, or one that cannot be trained with; ConfigError for thinking that it
    has no mode for.
    """

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool, moment: datetime | None = TRAINING_MOMENT) -> None:
        self._tokenizer = tokenizer
        source, for_tools = template_source(tokenizer), template_source(tokenizer, tools=[{}])
        fixed = with_fixed_clock(moment, source)
        self._plain = render_function(tokenizer, fixed)
        self._for_tools = render_function(tokenizer, with_fixed_clock(moment, for_tools))
        self._spliced: SplicedTexts | None = None
        if moment is not None and not has_own(tokenizer):
            self._spliced = SplicedTexts(fixed, tokens_of(tokenizer, fixed), self._plain)
        self.family = chat_families.detect(source)
        self._switch = {SWITCH: thinking}
        self._asked: tuple[Tools, str] | None = None
        self._features = template_probe.probe(self._closed)
        if thinking and not self._features.thinks:
            raise chat_families.refuse_thinking("the model's chat template")
        self.thinking_mode = self._mode()
        self._thoughts = self._kept(thinking)
        asked = self._prompt([ASKED], None)
        self.header = asked[common(asked, self.finished([ASKED], None)) :]
        self.end_of_turn, self._after_turn = self._probe_end()
        self._end_of_call = self.family.chat.end_of_call or self._probe_end_of_call()
        self._round_plans = self._plans()

    def text(self, messages: Sequence[Message], *, tools: Tools = None, parts: bool = False, **options: Any) -> str:
        """The template's own text. Raises what the template raises."""
        if self._spliced is not None and not tools and all(message.keys() <= _PLAIN for message in messages):
            text = self._spliced.text(messages, parts=parts, options=options)
            if text is not None:
                return text
        shown = [
            {key: value for key, value in message.items() if key not in _UNKNOWN_TO_TEMPLATES and value is not None}
            for message in messages
        ]
        if parts:
            shown = [message | {"content": [{"type": "text", "text": message["content"]}]} for message in shown]
        write = self._for_tools if tools else self._plain
        return write(shown, tools=tools, **options)

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """What inference sends to have the next answer after these messages."""
        adapted = adapt(messages, tools, self._features, self._thoughts)
        return self._prompt(adapted.messages, adapted.tools)

    def conversation(self, conversation: Conversation) -> Rendered:
        """Every answer of a conversation that has a question before it and is not marked as not trained.

        Raises RowError for a conversation that the template refuses or that leaves nothing to train, and for an answer
        of which the template leaves something out.
        """
        adapted = adapt(_numbered(conversation.messages), conversation.tools, self._features, self._thoughts)
        notes = dict.fromkeys(((UNANSWERED,) if conversation.unanswered else ()) + adapted.notes)
        if self.thinking_mode == "always" and not adapted.thinks:
            notes[EMPTY_THOUGHT] = None
        messages = adapted.messages
        wanted = _wanted(messages, notes)
        found = multi_turn.render(self, messages, adapted.tools, wanted)
        lost = lost_content.lost_roles(found.last_prompt, messages[: wanted[-1]])
        notes |= found.notes | {f"{role} turns are left out by the chat template": None for role in lost}
        return Rendered(answers=found.answers, notes=tuple(notes))

    def one_round(self, conversation: Conversation, ends: Sequence[str]) -> Round | None:
        """What `conversation` gives of one question and answer; None where that is asked. `ends` stay the same."""
        return self._round_plans.round(conversation, ends) if self._round_plans is not None else None

    def _plans(self) -> RoundPlans | None:
        if self._spliced is None or self.thinking_mode == "always":
            return None
        return RoundPlans(
            self._spliced,
            parts=self._features.parts,
            for_prompt=self._switch | {"add_generation_prompt": True},
            for_whole={} if self.family.chat.switch_after_answer else self._switch,
            end_of_turn=self.end_of_turn,
            after_turn=self._after_turn,
            has_system=self._features.system,
        )

    def stop_tokens(self) -> list[str]:
        """What ends an answer: the end of turn first, then the family's other ends and the tokenizer's own."""
        known = set(added_tokens(self._tokenizer).values())
        ends = (self.end_of_turn, self._end_of_call, self._tokenizer.eos_token, *_ENDS_OF_TEXT)
        return list(dict.fromkeys(str(end) for end in ends if end in known))

    def finished(self, messages: Sequence[Message], tools: Tools) -> str:
        """A conversation that waits for no answer. Raises what the template raises."""
        return self._closed(messages, tools=tools, parts=self._features.parts)

    def turn(self, messages: Sequence[Message], tools: Tools) -> Turn:
        """The last message as an answer to those before.

        Raises RowError for what the template refuses, and for an answer that it leaves out.
        """
        *before, last = messages
        if not last["content"].strip() and not last.get("tool_calls"):
            off = ", with thinking off" if self._thoughts == "switched off" else ""
            raise RowError(f"an answer that is only a thought{off}", droppable=True)
        said = said_in(last)
        try:
            prompt = self._prompt(before, tools)
            finished = self.finished(messages, tools)
            rest = self._rest(prompt, finished, last, tools)
            if not lost_content.contains(rest, said.answer):
                rest = self._standing_in(rest, prompt, messages, tools)
        except RowError:
            raise
        except Exception as error:
            raise _refused(last, error) from error
        missing = missing_part(rest, said, last)
        if missing is not None:
            raise RowError(f"has {missing} that the chat template leaves out, in turn {last.get(_TURN)}")
        answer = rest.removesuffix(self._after_turn)
        written = answer if finished.startswith(answer, len(prompt)) and finished.startswith(prompt) else None
        if not answer.endswith(self.end_of_turn) and not (self._end_of_call and answer.endswith(self._end_of_call)):
            answer += (self._end_of_call if last.get("tool_calls") else None) or self.end_of_turn
        return Turn(
            prompt=prompt,
            answer=answer,
            written=written,
            reference=last["content"] or answer.removesuffix(self.end_of_turn),
            notes=tuple(lost_notes(rest, said.answer)),
        )

    def _prompt(self, messages: Sequence[Message], tools: Tools) -> str:
        is_probe = len(messages) == 1 and messages[0] is ASKED
        if is_probe and self._asked is not None and self._asked[0] == tools:
            return self._asked[1]
        options = self._switch | {"add_generation_prompt": True}
        prompt = self.text(messages, tools=tools, parts=self._features.parts, **options)
        if is_probe:
            # answers of a long conversation are looked for as they stand behind this very prompt
            self._asked = tools, prompt
        return prompt

    def _closed(self, messages: Sequence[Message], **options: Any) -> str:
        switch = {} if self.family.chat.switch_after_answer else self._switch
        return self.text(messages, **(switch | options))

    def _rest(self, prompt: str, finished: str, last: Message, tools: Tools) -> str:
        """What a finished conversation has behind the prompt, with the thought that the template leaves out.

        Where an answer follows another, some templates show the earlier one in the prompt otherwise than in the
        finished text; then it is what the template writes of it behind a question, if it does so here as well.
        """
        thought = last.get(LOST_THOUGHT, "")
        rest = completion(prompt, finished, thought)
        if rest is not None:
            return rest
        some = tools[:1] if tools else None
        asked, alone = self._prompt([ASKED], some), self.finished([ASKED, last], some)
        rest = completion(asked, alone, thought)
        same = prompt.endswith(self.header) and finished.endswith(alone[len(asked) - len(self.header) :])
        if rest is None or not same:
            raise _refused(last, "it is written differently from its prompt")
        return rest

    def _standing_in(self, rest: str, prompt: str, messages: Sequence[Message], tools: Tools) -> str:
        """The same with a word for the answer, which the template has taken for something else, and then the answer."""
        *before, last = messages
        if last.get("tool_calls"):
            return rest
        word = last | {"content": _STAND_IN}
        other = self._rest(prompt, self.finished([*before, word], tools), word, tools)
        return other.replace(_STAND_IN, last["content"]) if _STAND_IN in other else rest

    def _mode(self) -> ThinkingMode:
        if self._features.switch:
            return "switch"
        if opens_thought(self._prompt([ASKED], None)):
            return "always"
        return "switch" if self._features.thinks else "none"

    def _kept(self, thinking: bool) -> Thoughts:
        if not self._features.thinks:
            return "no form"
        return "kept" if thinking or self.thinking_mode == "always" else "switched off"

    def _probe_end(self) -> tuple[str, str]:
        """The end-of-turn token, and what the template writes after it (which no answer has to learn)."""
        prompt, finished = self._prompt([ASKED], None), self.finished([ASKED, ANSWERED], None)
        if completion(prompt, finished) is None:
            raise ModelError(
                "the model's chat template writes a finished conversation differently from its prompt: "
                f"…{prompt[-40:]!r} does not lead to …{finished[-40:]!r}"
            )
        tail = finished.rpartition(ANSWER)[2]
        known = added_tokens(self._tokenizer)
        ends = [known[index] for index in encode(self._tokenizer, [tail])[0] if index in known]
        if ends:
            return ends[0], tail.partition(ends[0])[2]
        end = self.family.chat.end_of_turn or self._tokenizer.eos_token
        if not end:
            raise ModelError("neither the model's chat template nor its tokenizer has an end-of-turn token")
        return str(end), tail

    def _probe_end_of_call(self) -> str | None:
        """The control token that ends a call, where that is another than ends an answer."""
        if not self._features.tools:
            return None
        call = template_probe.probe_call(as_text=self._features.arguments_as_text)
        rest = self.finished([ASKED, call], template_probe.PROBE_TOOLS).removesuffix(self._after_turn)
        if rest.endswith(self.end_of_turn):
            return None
        return next((token for token in control_tokens(self._tokenizer) if rest.endswith(token)), None)


def _numbered(messages: Sequence[Message]) -> list[Message]:
    """Messages with their number, by which a person finds them; a system prompt in front has none."""
    first = 0 if messages[0]["role"] == "system" else 1
    return [message | {_TURN: number} for number, message in enumerate(messages, start=first)]


def _wanted(messages: Sequence[Message], notes: dict[str, None]) -> list[int]:
    """The places of the answers that are trained. Raises RowError when there are none."""
    asked = next(
        (place for place, message in enumerate(messages) if message["role"] in ("user", "tool")), len(messages)
    )
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    behind = [place for place in answers if place > asked]
    if not behind:
        raise RowError("an answer without a question", droppable=True)
    if len(behind) < len(answers):
        notes[GREETING] = None
    wanted = [place for place in behind if messages[place].get("trained", True)]
    if not wanted:
        raise RowError("no answer that is to be trained", droppable=True)
    return wanted


def _refused(message: Message, reason: object) -> RowError:
    turn = message.get(_TURN)
    return RowError(f"is refused by the model's chat template in turn {turn}: {truncate(reason, 160)}")
