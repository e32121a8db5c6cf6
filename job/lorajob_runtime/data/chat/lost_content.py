"""Checks that what a row says is in the text that its chat template makes of it.

Templates may trim, quote and escape. So a text counts as there when it is, but for blanks at its ends; and a value
among the arguments of a call, when the longest stretch of it that no way of writing changes is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lorajob_runtime.data.chat.adapt_messages import LOST_THOUGHT
from lorajob_runtime.data.chat.reasoning import Reply, apart
from lorajob_runtime.data.rows.conversation import Message
from lorajob_runtime.models.chat_families import OPEN_THOUGHT, THOUGHT_FIELDS

BLANKS_CUT = "white space around answers is cut by the chat template"
SAID_BESIDE_CALL = "what is said beside a call is left out by the chat template"

_UNCHANGED = re.compile(r"[A-Za-z0-9_.,:;()\[\] -]+")


def contains(rendered: str, text: str) -> bool:
    """Whether a text is there, blanks at its ends aside."""
    return text in rendered or text.strip() in rendered


def missing_calls(rendered: str, message: Message) -> int:
    """How many of a message's calls are not there, name and arguments."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    if not calls:
        return 0
    names = Counter(function["name"] for function in calls)
    fewer = sum(max(0, count - rendered.count(name)) for name, count in names.items())
    lost = sum(not all(piece in rendered for piece in _pieces(function["arguments"])) for function in calls)
    return max(fewer, lost)


def lost_roles(rendered: str, messages: Sequence[Message]) -> list[str]:
    """The roles, but for the assistant's, of messages whose content is not there, in the order of the messages."""
    lost: dict[str, None] = {}
    at = 0
    for message in messages:
        if message["role"] == "assistant":
            continue
        text = message["content"].strip()
        found = rendered.find(text, at)
        if found >= 0:
            at = found + len(text)
        elif text not in rendered and plain_stretch(text) not in rendered:
            lost[message["role"]] = None
    return list(lost)


def plain_stretch(text: str) -> str:
    """The longest stretch that quoting and escaping leave as it is."""
    return max(_UNCHANGED.findall(text), key=len, default="").strip()


def _pieces(arguments: object) -> Iterator[str]:
    if isinstance(arguments, dict):
        for name, value in arguments.items():
            yield plain_stretch(str(name))
            yield from _pieces(value)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from _pieces(value)
    elif isinstance(arguments, str):
        yield plain_stretch(arguments)
    elif _is_number(arguments):
        yield str(arguments)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def said_in(message: Message) -> Reply:
    """The thought and the answer that must be in what is trained of a message."""
    thought = next((message[name] for name in (*THOUGHT_FIELDS, LOST_THOUGHT) if message.get(name)), "")
    if thought or not message["content"].lstrip().startswith(OPEN_THOUGHT):
        return Reply(reasoning=thought, answer=message["content"])
    return apart(message["content"])


def missing_part(rest: str, said: Reply, message: Message) -> str | None:
    """What of a message is not in what would be trained, and cannot be done without."""
    calls = message.get("tool_calls", ())
    if not contains(rest, said.reasoning):
        return "a thought"
    if not contains(rest, said.answer) and not calls:
        return "an answer"
    lost = missing_calls(rest, message)
    if lost:
        return "a call" if lost == len(calls) else "a call beside another"
    return None


def lost_notes(rest: str, answer: str) -> Iterator[str]:
    if not contains(rest, answer):
        yield SAID_BESIDE_CALL
    elif answer not in rest:
        yield BLANKS_CUT
