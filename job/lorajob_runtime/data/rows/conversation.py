"""What every dataset form becomes: a conversation of messages, or a plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorajob_runtime.contract.text import replace_surrogates

Message = dict[str, Any]
"""`role` and `content` (always a string), with `tool_calls` and `reasoning_content` where the row has them.

`trained` is False for an answer that the row marks as context only; it is there in no other message.
"""


@dataclass(slots=True)
class Aside:
    """What one row has beside what becomes of it: names that mean nothing here, and what a person should know."""

    unused: set[str] = field(default_factory=set)
    """As `unused.named` writes them."""
    notes: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One row. `tools` are function descriptions in OpenAI's form.

    `unanswered` turns came after the last answer and are left out: nothing in them can be trained.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    unanswered: int = 0
    aside: Aside = field(default_factory=Aside, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A row that is trained whole."""

    text: str
    aside: Aside = field(default_factory=Aside, compare=False)


class RowError(Exception):
    """What is wrong with one row, which is left out and counted.

    `droppable`: there is nothing in it to learn (an empty answer), as happens in any file. Any other fault counts
    towards data.maxDropped, and its reason reads on after "row 7".
    """

    def __init__(self, reason: str, *, droppable: bool = False) -> None:
        super().__init__(reason)
        self.reason = replace_surrogates(reason)
        self.droppable = droppable


def too_deep() -> RowError:
    """What is wrong with a row whose values hold one another so often that they cannot be followed to their end."""
    return RowError("has values nested too deeply")
