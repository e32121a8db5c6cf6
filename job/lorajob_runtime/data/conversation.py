"""What every dataset form becomes: a conversation of messages, or a plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""`role` and `content` (always a string), with `tool_calls` and `reasoning_content` where the row has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One row. `tools` are function descriptions in OpenAI's form.

    `unanswered` turns came after the last answer and are left out: nothing in them can be trained.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A row that is trained whole."""

    text: str


class RowError(Exception):
    """What is wrong with one row. An empty one is dropped and counted; any other fault must be put right by someone."""

    def __init__(self, reason: str, *, droppable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.droppable = droppable
