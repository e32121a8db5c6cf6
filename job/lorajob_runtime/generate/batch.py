"""Prompts from a file: lines in, JSON lines out, in the file's order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.chat.reasoning import split
from lorajob_runtime.data.rows.conversation import Message, RowError
from lorajob_runtime.data.rows.turns import messages_of, tool_list
from lorajob_runtime.generate.generator import Generator, Sampling

ROWS_AT_A_TIME = 16
_WINDOW = 8 * ROWS_AT_A_TIME
"""Rows that are ordered by length among themselves, so that little is padded and answers still come while it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line: what of it is repeated beside the answer, and the conversation it asks for, with tools to call."""

    shown: dict[str, Any]
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


def parse(lines: Iterable[str], *, system: str | None) -> list[Row]:
    """Rows of plain text or JSON: "text", {"prompt": …}, {"instruction": …, "input": …} or {"messages": […]}.

    A row's own `system` comes before the one given. `tools` and the turns of `messages` are as in a dataset. Raises
    DataError with the line's number.
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
        order = sorted(range(len(window)), key=lambda index: len(_prompt(window[index], generator)))
        done: dict[int, dict[str, Any]] = {}
        for first in range(0, len(order), ROWS_AT_A_TIME):
            chosen = order[first : first + ROWS_AT_A_TIME]
            asked = [window[index] for index in chosen]
            done |= zip(chosen, _answer(asked, generator, sampling, compare_base), strict=True)
        for index, row in enumerate(window):
            yield row.shown | done[index]


def _prompt(row: Row, generator: Generator) -> list[int]:
    return generator.prompt(row.messages, row.tools)


def _answer(rows: list[Row], generator: Generator, sampling: Sampling, compare_base: bool) -> list[dict[str, Any]]:
    found = _replies("output", "thought", rows, generator, sampling, base=False)
    if not compare_base:
        return found
    others = _replies("base", "base_thought", rows, generator, sampling, base=True)
    return [item | other for item, other in zip(found, others, strict=True)]


def _replies(
    answer: str, thought: str, rows: list[Row], generator: Generator, sampling: Sampling, *, base: bool
) -> list[dict[str, Any]]:
    """One object a row, with its answer and, if there is one, its thought under these names."""
    texts = generator.batch([_prompt(row, generator) for row in rows], sampling, base=base)
    replies = (
        split(text, thinking=generator.opens_thought(row.messages, row.tools))
        for text, row in zip(texts, rows, strict=True)
    )
    return [{answer: reply.answer} | ({thought: reply.reasoning} if reply.reasoning else {}) for reply in replies]


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
        messages, tools = _turns(value, number, system)
        return Row(shown=value, messages=messages, tools=tools)
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


def _turns(value: dict[str, Any], number: int, system: str | None) -> tuple[list[Message], list[dict[str, Any]] | None]:
    try:
        messages, tools = messages_of(value["messages"]), tool_list(value.get("tools"))
    except RowError as error:
        raise DataError(f"line {number}: {error.reason}", hint="") from error
    if not messages:
        raise DataError(f"line {number} has no messages", hint="")
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages, tools
