"""Turns of a conversation, in ShareGPT's from/value or OpenAI's role/content form, made into messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lorajob_runtime.data.conversation import Conversation, Message, RowError
from lorajob_runtime.data.wording import brief, keys_of, kind

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "call",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
    "tool": "tool",
}
_KEPT = ("name", "tool_call_id", "reasoning_content")


def conversation(turns: object, *, tools: object, system: str | None) -> Conversation:
    """The conversation in a list of turns. `system` is used where the turns have none.

    Raises RowError: droppable when a question or answer is empty or there is no answer at all.
    """
    return finished(messages_of(turns), tools=tool_list(tools), system=system)


def messages_of(turns: object) -> list[Message]:
    """The messages in a list of turns, as they are. Raises RowError."""
    turns = parsed(turns, "the conversation")
    if not isinstance(turns, list):
        raise RowError(f"the conversation is {kind(turns)}: it must be a list of turns")
    return [_message(number, turn) for number, turn in enumerate(turns, start=1)]


def finished(messages: Sequence[Message], *, tools: list[dict[str, Any]] | None, system: str | None) -> Conversation:
    """Checks the messages, puts the system prompt first, and ends with the last answer. Raises RowError."""
    # An empty system prompt means none; one of the templates cannot even render it.
    spoken = [message for message in messages if message["role"] != "system" or message["content"].strip()]
    for message in spoken:
        if message["role"] == "user" and not message["content"].strip():
            raise RowError("empty question", droppable=True)
        if message["role"] == "assistant" and not (message["content"].strip() or message.get("tool_calls")):
            raise RowError("empty answer", droppable=True)
    answers = [index for index, message in enumerate(spoken) if message["role"] == "assistant"]
    if not answers:
        raise RowError("no answer", droppable=True)
    kept = spoken[: answers[-1] + 1]
    if system and kept[0]["role"] != "system":
        kept.insert(0, {"role": "system", "content": system})
    if kept[0]["role"] == "assistant" and len(answers) == 1:
        raise RowError("an answer without a question", droppable=True)
    return Conversation(messages=kept, tools=tools, unanswered=len(spoken) - answers[-1] - 1)


def tool_list(value: object) -> list[dict[str, Any]] | None:
    """Function descriptions, given as JSON text or a list, in OpenAI's form. Raises RowError."""
    tools = parsed(value, "tools") if value not in (None, "") else None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError(f"tools is {kind(tools)}: it must be a list of function descriptions")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def parsed(value: object, what: str) -> object:
    """A value that may have been written as JSON text. Raises RowError when the text is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"{what} is text that is not JSON") from error


def as_text(value: object, what: str) -> str:
    """Text of a value: null is empty, a number is written out. Raises RowError for anything else."""
    if value is None or value != value:  # NaN stands for null in tables
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RowError(f"{what} is {kind(value)}: it must be text")


def _message(number: int, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {kind(turn)}: it must be an object with from and value, or role and content")
    said = turn.get("from", turn.get("role"))
    role = _ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise RowError(f"turn {number} is from {brief(said)!r}: it must be one of {', '.join(_ROLES)}")
    if "value" not in turn and "content" not in turn and not _calls_in(turn):
        raise RowError(f"turn {number} has the keys {keys_of(turn)}: it needs value or content")
    content = turn.get("value", turn.get("content"))
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(parsed(content, f"turn {number}"), number)}
    if role == "tool" and isinstance(content, dict | list) and not _is_parts(content):
        content = json.dumps(content, ensure_ascii=False)
    message: Message = {"role": role, "content": _joined(content, number)}
    message |= {key: turn[key] for key in _KEPT if isinstance(turn.get(key), str)}
    if role == "assistant" and _calls_in(turn):
        message["tool_calls"] = _calls(_calls_in(turn), number)
    return message


def _calls_in(turn: dict[str, Any]) -> object:
    return turn.get("tool_calls") or turn.get("function_call")


def _calls(value: object, number: int) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, their arguments as an object. Raises RowError."""
    calls = []
    for item in value if isinstance(value, list) else [value]:
        function = item.get("function", item) if isinstance(item, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise RowError(f"turn {number} calls no function by name: a call needs name and arguments")
        arguments = parsed(function.get("arguments") or {}, f"the arguments in turn {number}")
        if not isinstance(arguments, dict):
            raise RowError(f"the arguments in turn {number} are {kind(arguments)}: they must be an object")
        call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            call["id"] = item["id"]
        calls.append(call)
    if not calls:
        raise RowError(f"turn {number} calls no function")
    return calls


def _is_parts(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content)


def _joined(content: object, number: int) -> str:
    """Content as one text; OpenAI's lists of parts are joined. Raises RowError for a part that is not text."""
    if not isinstance(content, list):
        return as_text(content, f"turn {number}")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise RowError(f"turn {number} has a part that is not text: only text can be trained here")
    return "".join(part["text"] for part in content)
