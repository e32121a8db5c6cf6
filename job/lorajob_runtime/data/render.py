"""Conversations as text, through the model's own chat template.

The law: training puts before an answer, token for token, what inference sends for it. So both ask the same function for
the prompt, and the answer is what the template adds to it, up to and with the end of the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lorajob_runtime.data import families, plain_tools
from lorajob_runtime.data.answers import opens_thought
from lorajob_runtime.data.conversation import Message, RowError
from lorajob_runtime.data.tokenizer import Tokenizer, added_tokens, encode, token_id
from lorajob_runtime.data.wording import brief
from lorajob_runtime.exits import ModelError

Tools = Sequence[dict[str, Any]] | None

ThinkingMode = Literal["none", "switch", "always"]
"""No such mode, one that can be switched, or one that cannot be turned off; as in the catalog."""

_ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
"""What base models end a document with; instruct models made from them may still do it."""

_THOUGHT = "reasoning_content"
"""The field of a message in which a thought is apart from the answer."""

_PROBE = "lorajob"
"""A word that no template changes."""
_ASKED: Message = {"role": "user", "content": _PROBE}

TRAINING_MOMENT = datetime(2025, 1, 1, tzinfo=UTC)
"""What templates with a clock show in training: the same data must give the same tokens."""

_CLOCK = "strftime_now"
_CLOCK_CODES = ("%Y", "%y", "%m", "%B", "%b", "%d", "%-d", "%j", "%A", "%a", "%H", "%I", "%M", "%S", "%p", "%Z", "%z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of a conversation: the text before it, and the text that is trained, with the end of its turn."""

    prompt: str
    answer: str
    reference: str
    """What the row says, for a person."""


class ChatTemplate:
    """A tokenizer's chat template with the thinking switch set, at a fixed moment or, with None, at the present one.

    Raises ModelError when the tokenizer has none, or one that cannot be trained with; ConfigError for thinking that it
    has no mode for.
    """

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool, moment: datetime | None = TRAINING_MOMENT) -> None:
        self._tokenizer = tokenizer
        self._thinking = thinking
        source, for_tools = _source(tokenizer), _source(tokenizer, tools=[{}])
        self._plain, self._for_tools = _at(moment, source), _at(moment, for_tools)
        if thinking and not families.can_think(source):
            raise families.refuse_thinking("the model's chat template")
        self.family = families.recognise(source)
        self.knows_tools = "tools" in for_tools
        self._has_switch = families.SWITCH in source
        self._can_think = families.can_think(source)
        self._knows_thoughts = _THOUGHT in source
        self.end_of_turn, self._after_turn = self._probe_end()
        self.thinking_mode = self._mode()

    def text(self, messages: Sequence[Message], *, tools: Tools = None, **options: Any) -> str:
        """The template's own text. Raises whatever the template raises."""
        rendered: str = self._tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            chat_template=self._for_tools if tools else self._plain,
            tokenize=False,
            **options,
        )
        return rendered

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """What inference sends to have the next answer after these messages."""
        messages, tools = self._adapted(messages, tools)
        return self.text(messages, tools=tools, add_generation_prompt=True, enable_thinking=self._thinking)

    def answers(self, messages: Sequence[Message], tools: Tools = None) -> list[Answer]:
        """Every trained answer of a conversation that has something before it, in order.

        Raises RowError for an answer of which nothing is left, and whatever the template raises.
        """
        messages, tools = self._adapted(messages, tools)
        return [
            self._answer(messages[: index + 1], tools)
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and index > 0 and message.get("trained") is not False
        ]

    def stop_tokens(self) -> list[str]:
        """What ends an answer: the end of turn first, then the family's other ends and the tokenizer's own."""
        known = set(added_tokens(self._tokenizer).values())
        ends = (self.end_of_turn, self.family.end_of_call, self._tokenizer.eos_token, *_ENDS_OF_TEXT)
        return list(dict.fromkeys(str(end) for end in ends if end in known))

    def _answer(self, messages: Sequence[Message], tools: Tools) -> Answer:
        last = messages[-1]
        if not last["content"].strip() and not last.get("tool_calls"):
            raise RowError("an answer that is only a thought, with thinking off", droppable=True)
        prompt = self.text(messages[:-1], tools=tools, add_generation_prompt=True, enable_thinking=self._thinking)
        rest = self._after(prompt, self._finished(messages, tools)).removesuffix(self._after_turn)
        if not rest.endswith(self.end_of_turn):
            rest += (self.family.end_of_call if last.get("tool_calls") else None) or self.end_of_turn
        return Answer(prompt=prompt, answer=rest, reference=last["content"] or rest.removesuffix(self.end_of_turn))

    def _finished(self, messages: Sequence[Message], tools: Tools) -> str:
        switch = {} if self.family.switch_after_answer else {"enable_thinking": self._thinking}
        return self.text(messages, tools=tools, **switch)

    def _after(self, prompt: str, finished: str) -> str:
        """What a finished conversation has behind the prompt. Raises ModelError when the two do not go together."""
        if finished.startswith(prompt):
            return finished[len(prompt) :]
        for bridge in self.family.bridges:
            shorter = prompt.removesuffix(bridge.prompt_end)
            if shorter != prompt and finished.startswith(shorter):
                return bridge.answer_start + finished[len(shorter) :]
        raise ModelError(
            "the model's chat template writes a finished conversation otherwise than its prompt: "
            f"…{prompt[-40:]!r} does not lead to …{finished[-40:]!r}"
        )

    def _adapted(self, messages: Sequence[Message], tools: Tools) -> tuple[list[Message], Tools]:
        """Messages as this template can say them."""
        adapted = [self._thoughts_adapted(message) for message in messages]
        adapted = [message for message in adapted if message["role"] != "system" or message["content"]]
        if not self.knows_tools:
            return plain_tools.written_out(adapted, tools), None
        return adapted, tools

    def _thoughts_adapted(self, message: Message) -> Message:
        if self.drops_thoughts:
            return _without_thoughts(message)
        if self._knows_thoughts or _THOUGHT not in message:
            return message
        # the template would leave it out without a word
        return _with_thought_written(message) if self._can_think else _without_thoughts(message)

    @property
    def drops_thoughts(self) -> bool:
        """With thinking switched off inference sends an empty thought, so that one in the data has no place."""
        return self._has_switch and not self._thinking

    @property
    def loses_thoughts(self) -> bool:
        """Whether a thought beside the answer, in a field of its own, has no place."""
        return self.drops_thoughts or not (self._knows_thoughts or self._can_think)

    def _mode(self) -> ThinkingMode:
        if self._has_switch:
            return "switch"
        return "always" if opens_thought(self.prompt([_ASKED])) else "none"

    def _probe_end(self) -> tuple[str, str]:
        """The end-of-turn token, and what the template writes after it (which no answer has to learn)."""
        try:
            finished = self._finished([_ASKED, {"role": "assistant", "content": _PROBE + "!"}], None)
        except Exception as error:
            raise ModelError(f"the model's chat template cannot render a conversation: {brief(error, 160)}") from error
        self._after(self.prompt([_ASKED]), finished)
        tail = finished.rpartition(_PROBE + "!")[2]
        known = added_tokens(self._tokenizer)
        ends = [known[index] for index in encode(self._tokenizer, [tail])[0] if index in known]
        if ends:
            return ends[0], tail.partition(ends[0])[2]
        end = self.family.end_of_turn or self._tokenizer.eos_token
        if not end:
            raise ModelError("neither the model's chat template nor its tokenizer has an end-of-turn token")
        return str(end), tail


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message], thinking: bool, tools: Tools = None) -> list[int]:
    """Token ids that inference sends to have the next answer: what training put before it.

    Raises ModelError, and ConfigError for thinking that the model has no mode for.
    """
    template = ChatTemplate(tokenizer, thinking=thinking, moment=None)
    try:
        prompt = template.prompt(messages, tools)
    except Exception as error:
        raise ModelError(f"the model's chat template refuses the conversation: {brief(error, 160)}") from error
    return encode(tokenizer, [prompt])[0]


def stop_ids(tokenizer: Tokenizer) -> list[int]:
    """Token ids at which generation ends. Without a chat template: the tokenizer's end token."""
    if not tokenizer.chat_template:
        tokens = [tokenizer.eos_token] if tokenizer.eos_token else []
    else:
        tokens = ChatTemplate(tokenizer, thinking=False).stop_tokens()
    ids = (token_id(tokenizer, token) for token in tokens)
    return [index for index in ids if index is not None]


def _source(tokenizer: Tokenizer, tools: Tools = None) -> str:
    try:
        source: str = tokenizer.get_chat_template(tools=tools)
    except ValueError as error:
        raise ModelError(
            "the model's tokenizer has no chat template: take an instruct model, or train rows of the form text"
        ) from error
    return source


def _at(moment: datetime | None, source: str) -> str:
    """The template with its clock stopped: a macro of the clock's name that fills in a fixed moment."""
    if moment is None or _CLOCK not in source:
        return source
    codes = "".join(f"|replace({code!r}, {moment.strftime(code)!r})" for code in _CLOCK_CODES)
    # The empty output keeps white space at the template's start from being trimmed with the macro's end.
    return f"{{% macro {_CLOCK}(form) %}}{{{{ form{codes} }}}}{{% endmacro %}}{{{{ '' }}}}{source}"


def _without_thoughts(message: Message) -> Message:
    if message["role"] != "assistant":
        return message
    shown = {key: value for key, value in message.items() if key != _THOUGHT}
    if "</think>" in message["content"]:
        shown["content"] = message["content"].rpartition("</think>")[2].lstrip("\n")
    return shown


def _with_thought_written(message: Message) -> Message:
    """The thought in front of the answer, as models with `<think>` write it."""
    shown = {key: value for key, value in message.items() if key != _THOUGHT}
    return shown | {"content": f"<think>\n{message[_THOUGHT].strip()}\n</think>\n{message['content']}"}
