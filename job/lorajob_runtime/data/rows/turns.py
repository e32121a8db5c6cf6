"""Turns of a conversation, in ShareGPT's from/value or OpenAI's role/content form, made into messages."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from lorajob_runtime.contract.text import key_list, kind, truncate
from lorajob_runtime.data.rows import training_marks
from lorajob_runtime.data.rows.conversation import Aside, Conversation, Message, RowError
from lorajob_runtime.data.rows.json_values import text_of, value_of
from lorajob_runtime.data.rows.tool_calls import CALLS, calls_in, calls_of
from lorajob_runtime.data.rows.unused import beside, has_something, says_something
from lorajob_runtime.data.rows.values import as_text, parsed

_ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "tool_calls": "call",
    "observation": "tool",
    "observations": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function": "tool",
    "tool": "tool",
    "environment": "tool",
    "ipython": "tool",
}
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought")
"""Keys in which a thought stands apart from the answer, the first that has one wins."""

_PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("query", "response"))
"""Keys of a whole round as one turn: Firefly's, MOSS's and XTuner's."""
_KEPT = ("name", "tool_call_id")
_SAID = ("value", "content")
_REFUSAL = "refusal"
"""Where OpenAI's answers have what they say in place of content, as a key or as a part."""
_READ = frozenset(("from", "role", *_KEPT))
_TEXT_KEYS = ("text", "value")
_PARTS = (
    *("text", "input_text", "output_text", "image", "image_url", "input_image", "audio", "input_audio", "audio_url"),
    *("video", "video_url", "file", "input_file", "document"),
)
_THOUGHT_PARTS = ("reasoning", "thinking")
_ANTHROPIC = ("tool_use", "tool_result")

ASKED_FOR_OTHERS = "marks ask to train turns that are not the assistant's, which are never trained"
CONTEXT_ONLY = "answers that are marked not to be trained are context only"


def conversation(turns: object, *, tools: object, system: str | None, aside: Aside | None = None) -> Conversation:
    """The conversation in a list of turns. `system` is used where the turns have none.

    Raises RowError: droppable when a question or answer is empty or there is no answer to train.
    """
    aside = aside or Aside()
    return finished(messages_of(turns, aside), tools=tool_list(tools), system=system, aside=aside)


def messages_of(turns: object, aside: Aside | None = None) -> list[Message]:
    """The messages in a list of turns, as they are. `aside` takes what they have besides. Raises RowError."""
    aside = aside or Aside()
    found: list[Message] = []
    for number, turn in enumerate(turn_list(turns), start=1):
        turn = _turn(number, turn)
        if (message := _plain(turn)) is not None:
            found.append(message)
            continue
        pair = pair_keys(turn)
        found += [_message(number, turn, aside)] if pair is None else _round(number, turn, pair, aside)
    return found


def turn_list(turns: object) -> list[Any]:
    """A conversation as a list: from JSON text, from columns of roles and contents, or as it is. Raises RowError."""
    turns = parsed(turns, "the conversation")
    if isinstance(turns, dict):
        turns = _transposed(turns)
    if not isinstance(turns, list):
        raise RowError(f"the conversation is {kind(turns)}: it must be a list of turns")
    if len(turns) == 1 and isinstance(turns[0], list) and all(isinstance(turn, dict) for turn in turns[0]):
        return turns[0]
    return [_from_text(turn) if isinstance(turn, str) else turn for turn in turns]


def pair_keys(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of question and answer in a turn that is a whole round; None for a turn of one speaker."""
    if "from" in turn or "role" in turn:
        return None
    return next((pair for pair in _PAIRS if pair[0] in turn and pair[1] in turn), None)


def finished(
    messages: Sequence[Message], *, tools: list[dict[str, Any]] | None, system: str | None, aside: Aside
) -> Conversation:
    """Checks the messages, puts the system prompt first, and ends with the last trained answer. Raises RowError."""
    # An empty system prompt means none; one of the templates cannot even render it.
    spoken = [message for message in messages if message["role"] != "system" or message["content"].strip()]
    for message in spoken:
        if message["role"] == "user" and not message["content"].strip():
            raise RowError("empty question", droppable=True)
        if _is_trained(message) and not (message["content"].strip() or message.get("tool_calls")):
            raise RowError("empty answer", droppable=True)
    answers = [index for index, message in enumerate(spoken) if message["role"] == "assistant"]
    trained = [index for index in answers if _is_trained(spoken[index])]
    if not answers:
        raise RowError("no answer", droppable=True)
    if not trained:
        raise RowError("every answer marked not to be trained", droppable=True)
    kept = spoken[: trained[-1] + 1]
    if system and kept[0]["role"] != "system":
        kept.insert(0, {"role": "system", "content": system})
    if kept[0]["role"] == "assistant" and len(trained) == 1 and trained[0] == 0:
        raise RowError("an answer without a question", droppable=True)
    if len(trained) < len(answers):
        aside.notes.add(CONTEXT_ONLY)
    return Conversation(messages=kept, tools=tools, unanswered=len(spoken) - answers[-1] - 1, aside=aside)


def tool_list(value: object) -> list[dict[str, Any]] | None:
    """Function descriptions, given as JSON text or a list, in OpenAI's form. Raises RowError."""
    tools = parsed(value, "tools") if has_something(value) else None
    if not tools:
        return None
    if isinstance(tools, dict) and tools.keys() & {"name", "function"}:
        tools = [tools]
    items = [parsed(tool, "tools") for tool in tools] if isinstance(tools, list) else None
    if items is None or not all(isinstance(tool, dict) for tool in items):
        raise RowError(f"tools is {kind(tools)}: it must be a list of function descriptions")
    return [_tool(tool) for tool in items if isinstance(tool, dict)]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """One description in OpenAI's form, from that of its chat or of its newer interface, or bare. Raises RowError."""
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(
            f"tools has an entry with the keys {key_list(tool)}: it must describe a function that has a name"
        )
    if "function" in tool:
        return tool
    is_typed = tool.get("type") == "function"
    return {
        "type": "function",
        "function": {key: value for key, value in tool.items() if not (is_typed and key == "type")},
    }


def _is_trained(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("trained") is not False


def _transposed(turns: Mapping[str, Any]) -> object:
    """`{"role": [...], "content": [...]}`, as `datasets` gives a sequence of turns, as a list; else unchanged."""
    columns = {key: values for key, values in turns.items() if isinstance(values, list)}
    lengths = {len(values) for values in columns.values()}
    if not columns.keys() & {"from", "role"} or not columns.keys() & set(_SAID) or len(lengths) != 1:
        return turns
    return [{key: values[index] for key, values in columns.items()} for index in range(lengths.pop())]


def _from_text(turn: str) -> object:
    """A turn that was written as JSON text; any other text as it is."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(value := value_of(turn), dict):
            return value
    return turn


def _turn(number: int, turn: object) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {kind(turn)}: it must be an object with from and value, or role and content")
    return turn


def _plain(turn: Mapping[str, Any]) -> Message | None:
    """The message in a turn that has a speaker and a text and nothing else, as most have; None for any other turn."""
    said, content = (turn.get("role"), turn.get("content")) if "role" in turn else (turn.get("from"), turn.get("value"))
    if len(turn) != 2 or not isinstance(said, str) or not isinstance(content, str):
        return None
    role = _ROLES.get(said)
    return {"role": role, "content": content} if role is not None and role != "call" else None


def _round(number: int, turn: dict[str, Any], pair: tuple[str, str], aside: Aside) -> list[Message]:
    """A question with its answer in one turn, and the system prompt before them."""
    asked, answered = pair
    marks = {key: turn[key] for key in turn.keys() & training_marks.KEYS}
    thoughts = {key: turn[key] for key in THOUGHTS if key in turn}
    aside.unused.update(beside("turn key", turn, {asked, answered, "system", *marks, *thoughts}))
    spoken = [{"role": "user", "content": turn[asked]}]
    if has_something(turn.get("system")):
        spoken.insert(0, {"role": "system", "content": turn["system"]})
    spoken.append({"role": "assistant", "content": turn[answered]} | marks | thoughts)
    return [_message(number, said, aside) for said in spoken]


def _message(number: int, turn: dict[str, Any], aside: Aside) -> Message:
    said = turn.get("from") if turn.get("from") is not None else turn.get("role")
    if not has_something(said):
        raise RowError(f"turn {number} does not say whose it is: it needs from and value, or role and content")
    role = _ROLES.get(said.strip().lower().replace("-", "_")) if isinstance(said, str) else None
    if role is None:
        raise RowError(f"turn {number} is from {truncate(said)!r}: it must be one of {', '.join(_ROLES)}")
    calls = calls_in(turn)
    said_in = (*_SAID, _REFUSAL) if role == "assistant" else _SAID
    if turn.keys().isdisjoint(said_in) and calls is None and says_something(turn, beside=_READ):
        raise RowError(f"turn {number} has the keys {key_list(turn)}: it needs value or content")
    is_trained, used = training_marks.trained(turn, number)
    used |= _READ
    at = next((key for key in said_in if has_something(turn.get(key))), "content")
    content, used = turn.get(at), used | {at}
    message: Message
    if role == "call":
        content = parsed(content, f"turn {number}")
        message = {"role": "assistant", "content": "", "tool_calls": calls_of(content, number, aside)}
    elif role == "tool" and isinstance(content, dict | list | bool) and not _is_parts(content):
        message = {"role": role, "content": text_of(content)}
    else:
        message = {"role": role} | _said(content, number, aside)
    message |= {key: turn[key] for key in _KEPT if isinstance(turn.get(key), str)}
    if message["role"] == "assistant":
        used |= _complete(message, turn, calls, number, aside)
        if is_trained is False:
            message["trained"] = False
    elif is_trained:
        aside.notes.add(ASKED_FOR_OTHERS)
    aside.unused.update(beside("turn key", turn, used))
    return message


def _complete(message: Message, turn: Mapping[str, Any], calls: object, number: int, aside: Aside) -> set[str]:
    """Adds an answer's calls and its thought to it; the keys that they were read from."""
    used = set()
    if calls is not None:
        message["tool_calls"] = message.get("tool_calls", []) + calls_of(calls, number, aside)
        used |= {key for key in CALLS if has_something(turn.get(key))}
    # A thought that is in the answer as well is not put in front of it again.
    if not message["content"].lstrip().startswith("<think>"):
        for key in THOUGHTS:
            thought = turn.get(key)
            says_it = isinstance(thought, str) and thought.strip()
            if says_it and message.setdefault("reasoning_content", thought) == thought:
                used.add(key)
    return used


def _is_parts(content: object) -> bool:
    """Whether a list is content in parts; the result of a tool may be any other list of objects."""
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(part, dict) and part.get("type") in _PARTS for part in content)


def _said(content: object, number: int, aside: Aside) -> Message:
    """Content as one text; OpenAI's lists of parts are joined. Raises RowError for a part that is not text."""
    if not isinstance(content, list):
        return {"content": as_text(content, f"turn {number}")}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[object] = []
    for part in content:
        if not isinstance(part, dict):
            raise RowError(f"turn {number} has a part that is {kind(part)}: it must be an object with type and text")
        sort = part.get("type", "text")
        if sort == "tool_call" and has_something(part.get("value")):
            calls.append(part["value"])
            continue
        at = next((key for key in (*_TEXT_KEYS, "thinking", _REFUSAL) if isinstance(part.get(key), str)), None)
        if at is None or sort not in ("text", "input_text", "output_text", _REFUSAL, *_THOUGHT_PARTS):
            what = sort if "type" in part else key_list(part)
            if sort in _ANTHROPIC:
                raise RowError(
                    f"turn {number} has a part {sort}: write calls as tool_calls, results as turns of role tool"
                )
            raise RowError(
                f"turn {number} has a part that is not text ({truncate(what)}): only text can be trained here"
            )
        (thoughts if sort in _THOUGHT_PARTS else texts).append(part[at])
        aside.unused.update(beside("part key", part, {"type", at}))
    message: Message = {"content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [call for item in calls for call in calls_of(item, number, aside)]
    return message
