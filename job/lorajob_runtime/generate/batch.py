"""Prompts from a file: lines in, JSON lines out, in the file's order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.data.answers import split
from lorajob_runtime.data.conversation import Message
from lorajob_runtime.exits import DataError
from lorajob_runtime.generate.generator import Conversation, Generator, Sampling

ROWS_AT_A_TIME = 16
_WINDOW = 8 * ROWS_AT_A_TIME
"""Rows that are ordered by length among themselves, so that little is padded and answers still come while it runs."""

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line: what of it is repeated beside the answer, and the conversation it asks for."""

    shown: dict[str, Any]
    messages: list[Message]


def parse(lines: Iterable[str], *, system: str | None) -> list[Row]:
    """Rows of plain text or JSON: "text", {"prompt": …}, {"instruction": …, "input": …} or {"messages": […]}.

    A row's own `system` comes before the one given. Raises DataError with the line's number.
    """
    rows = [_row(line.strip(), number, system) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError("the file has no prompts", hint="one prompt a line, plain or as JSON")
    return rows


def answers(
    rows: list[Row], generator: Generator, sampling: Sampling, *, compare_base: bool
) -> Iterator[dict[str, Any]]:
    """One object a row, in order, as soon as it can be given: what the row showed, `output`, and `base` if asked.

    Where the model thought first, `thought` and `base_thought` say what.
    """
    for start in range(0, len(rows), _WINDOW):
        window = rows[start : start + _WINDOW]
        order = sorted(range(len(window)), key=lambda index: len(generator.prompt(window[index].messages)))
        done: dict[int, dict[str, Any]] = {}
        for first in range(0, len(order), ROWS_AT_A_TIME):
            chosen = order[first : first + ROWS_AT_A_TIME]
            conversations: list[Conversation] = [window[index].messages for index in chosen]
            done |= zip(chosen, _answer(conversations, generator, sampling, compare_base), strict=True)
        for index, row in enumerate(window):
            yield row.shown | done[index]


def _answer(
    conversations: list[Conversation],
    generator: Generator,
    sampling: Sampling,
    compare_base: bool,
) -> list[dict[str, Any]]:
    found = _replies("output", "thought", conversations, generator, sampling, base=False)
    if not compare_base:
        return found
    others = _replies("base", "base_thought", conversations, generator, sampling, base=True)
    return [item | other for item, other in zip(found, others, strict=True)]


def _replies(
    answer: str,
    thought: str,
    conversations: list[Conversation],
    generator: Generator,
    sampling: Sampling,
    *,
    base: bool,
) -> list[dict[str, Any]]:
    """One object a conversation, with its answer and, if there is one, its thought under these names."""
    texts = generator.batch(conversations, sampling, base=base)
    replies = (
        split(text, thinking=generator.opens_thought(asked)) for text, asked in zip(texts, conversations, strict=True)
    )
    return [{answer: reply.answer} | ({thought: reply.thought} if reply.thought else {}) for reply in replies]


def _row(line: str, number: int, system: str | None) -> Row:
    value: Any = line
    if line[0] in '{"':
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"line {number} is not JSON: {error}", hint="") from error
    if isinstance(value, str):
        value = {"prompt": value}
    if "messages" in value:
        return Row(shown=value, messages=_messages(value["messages"], number, system))
    text = value.get("prompt")
    if text is None and "instruction" in value:
        text = f"{value['instruction']}{value.get('input') or ''}"
    if not isinstance(text, str) or not text:
        raise DataError(
            f"line {number} has no prompt: it must be text or have prompt, instruction or messages", hint=""
        )
    return Row(shown=value, messages=conversation(text, value.get("system") or system))


def conversation(prompt: str, system: str | None) -> list[Message]:
    """One question, behind the system prompt where there is one."""
    asked: Message = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, asked] if system else [asked]


def _messages(value: object, number: int, system: str | None) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"line {number} has messages that are no list", hint="")
    messages: list[Message] = []
    for item in value:
        fits = isinstance(item, dict) and item.get("role") in _ROLES and isinstance(item.get("content"), str)
        if not fits:
            raise DataError(f"line {number} has a message without role ({', '.join(_ROLES)}) and content", hint="")
        messages.append({"role": item["role"], "content": item["content"]})
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages
