"""Rewrites messages into what a chat template has a form for, in inference as in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from lorajob_runtime.data.chat import tool_prompt
from lorajob_runtime.data.chat.reasoning import apart
from lorajob_runtime.data.chat.template_probe import TemplateFeatures
from lorajob_runtime.data.rows.conversation import Message
from lorajob_runtime.data.rows.json_values import text_of
from lorajob_runtime.models.chat_families import CLOSE_THOUGHT, OPEN_THOUGHT

Tools = Sequence[dict[str, Any]] | None

GIVEN_THOUGHT = "reasoning_content"
"""The field in which a row has a thought apart from the answer."""

LOST_THOUGHT = "lost_thought"
"""The field of a thought that the template would leave out: who renders the answer puts it in."""

Thoughts = Literal["kept", "switched off", "no form"]
"""What becomes of thoughts in the data: switched off, inference sends an empty one, so that they have no place."""

SWITCHED_OFF = "thoughts are left out, as data.thinking is off"
NO_FORM = "thoughts are left out, as the chat template has no form for them"
TOOLS_TOLD = "tools are described in the system prompt, as the chat template has no form for them"
CALLS_TOLD = "calls are written as text, as the chat template leaves them out"
RESULTS_ASKED = "results of tools are turns of the user, as the chat template leaves them out"
SYSTEM_ASKED = "the system prompt is put into the first question, as the chat template has no place for it"
QUESTIONS_JOINED = "questions in a row are joined, as the chat template wants turns to alternate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """`notes` are what a person should know of the changes. `thinks`: some answer has a thought, left out or not."""

    messages: list[Message]
    tools: Tools
    notes: tuple[str, ...]
    thinks: bool


def adapt(messages: Sequence[Message], tools: Tools, features: TemplateFeatures, thoughts: Thoughts) -> Adapted:
    """The same conversation, in what this template has a place for."""
    notes: dict[str, None] = {}
    thinks = any(_thought_of(message).strip() for message in messages)
    if thinks and thoughts != "kept" and (thoughts == "switched off" or _any_field(messages)):
        notes[SWITCHED_OFF if thoughts == "switched off" else NO_FORM] = None
    said = [_with_thought(message, features, thoughts) for message in messages]
    said = [message for message in said if message["role"] != "system" or message["content"]]
    said, tools = _with_calls(said, tools, features, notes)
    if not features.results and any(message["role"] == "tool" for message in said):
        said = [tool_prompt.result_asked(message) if message["role"] == "tool" else message for message in said]
        notes[RESULTS_ASKED] = None
    if not features.system and said and said[0]["role"] == "system":
        said = _system_asked(said)
        notes[SYSTEM_ASKED] = None
    if not features.questions_in_a_row and any(a["role"] == b["role"] == "user" for a, b in pairwise(said)):
        said = list(_joined(said))
        notes[QUESTIONS_JOINED] = None
    return Adapted(messages=said, tools=tools, notes=tuple(notes), thinks=thinks)


def _thought_of(message: Message) -> str:
    if message["role"] != "assistant":
        return ""
    given: str = message.get(GIVEN_THOUGHT, "")
    return given if given.strip() or CLOSE_THOUGHT not in message["content"] else apart(message["content"]).reasoning


def _any_field(messages: Sequence[Message]) -> bool:
    return any(message.get(GIVEN_THOUGHT, "").strip() for message in messages)


def _with_thought(message: Message, features: TemplateFeatures, thoughts: Thoughts) -> Message:
    if message["role"] != "assistant":
        return message
    field, content = message.get(GIVEN_THOUGHT), message["content"]
    if GIVEN_THOUGHT not in message and CLOSE_THOUGHT not in content:
        return message
    reply = apart(content) if CLOSE_THOUGHT in content else None
    bare = {key: value for key, value in message.items() if key != GIVEN_THOUGHT}
    if thoughts == "no form":
        return bare
    begins = reply is not None and reply.answer != content
    if thoughts == "switched off":
        answer = bare | {"content": reply.answer} if reply is not None else bare
        return _unsplit(answer, features)
    if field is not None:
        return _placed(bare, field, features)
    if reply is None or not begins:
        return _unsplit(bare, features)
    if features.written_thought and content.lstrip().startswith(OPEN_THOUGHT) and CLOSE_THOUGHT not in reply.answer:
        return bare
    return _placed(bare | {"content": reply.answer}, reply.reasoning, features)


def _placed(bare: Message, thought: str, features: TemplateFeatures) -> Message:
    """A thought where the template reads it, else written before the answer, else left to who renders."""
    if features.thought_field is not None:
        return bare | {features.thought_field: thought}
    if features.written_thought:
        return bare | {"content": f"{OPEN_THOUGHT}\n{thought.strip()}\n{CLOSE_THOUGHT}\n{bare['content']}"}
    return bare | {LOST_THOUGHT: thought.strip()}


def _unsplit(bare: Message, features: TemplateFeatures) -> Message:
    """An answer without a thought. With an empty one in its field no template looks for marks in what it says."""
    if CLOSE_THOUGHT in bare["content"] and features.written_thought and features.thought_field is not None:
        return bare | {features.thought_field: ""}
    return bare


def _with_calls(
    said: list[Message], tools: Tools, features: TemplateFeatures, notes: dict[str, None]
) -> tuple[list[Message], Tools]:
    calls = any(message.get("tool_calls") for message in said)
    if not features.tools:
        if tools:
            notes[TOOLS_TOLD] = None
        elif calls:
            notes[CALLS_TOLD] = None
        return tool_prompt.written_out(said, tools), None
    if calls and not tools and not features.calls_without_tools:
        notes[CALLS_TOLD] = None
        return tool_prompt.written_out(said, None), None
    if calls and features.arguments_as_text:
        said = [_arguments_as_text(message) for message in said]
    return said, tools


def _arguments_as_text(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": text_of(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


def _system_asked(said: list[Message]) -> list[Message]:
    """The system prompt before the first question, in its turn. Without any question it stays where it is."""
    first = next((index for index, message in enumerate(said) if message["role"] == "user"), None)
    if first is None:
        return said
    asked = said[first] | {"content": f"{said[0]['content']}\n\n{said[first]['content']}"}
    return [*said[1:first], asked, *said[first + 1 :]]


def _joined(said: Sequence[Message]) -> Iterator[Message]:
    last: Message | None = None
    for message in said:
        if last is not None and last["role"] == message["role"] == "user":
            last = last | {"content": f"{last['content']}\n\n{message['content']}"}
        else:
            if last is not None:
                yield last
            last = message
    if last is not None:
        yield last
