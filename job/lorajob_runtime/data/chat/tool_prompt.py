"""Tools for a chat template that has no form for them: said in words in the system prompt, calls written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorajob_runtime.data.rows.conversation import Message
from lorajob_runtime.data.rows.json_values import text_of

_OF_CALLS = frozenset(("tool_calls", "name", "tool_call_id"))
_INTRODUCTION = (
    "You may call one or more of these functions. To call one, answer with its name and arguments as JSON within "
    "<tool_call></tool_call> tags.\n"
)


def written_out(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> list[Message]:
    """The same conversation with calls and tools in its content alone."""
    plain = [_without_calls(message) for message in messages]
    if not tools:
        return plain
    described = _INTRODUCTION + "\n".join(text_of(tool) for tool in tools)
    if plain and plain[0]["role"] == "system":
        return [plain[0] | {"content": f"{plain[0]['content']}\n\n{described}"}, *plain[1:]]
    return [{"role": "system", "content": described}, *plain]


def result_asked(message: Message) -> Message:
    """A tool's result as a turn of the user, for a template that has no place for the role."""
    return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}


def _without_calls(message: Message) -> Message:
    if _OF_CALLS.isdisjoint(message):
        return message
    plain = {key: value for key, value in message.items() if key not in _OF_CALLS}
    return plain | {"content": message["content"] + _calls(message.get("tool_calls", ()))}


def _calls(calls: Sequence[dict[str, Any]]) -> str:
    functions = (text_of(call["function"]) for call in calls)
    return "\n".join(f"<tool_call>\n{function}\n</tool_call>" for function in functions)
