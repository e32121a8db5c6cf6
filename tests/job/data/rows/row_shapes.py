"""A question and its answer as messages, and what a row becomes, for tests of the shapes that rows may have."""

from __future__ import annotations

from typing import Any

from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation
from lorajob_runtime.data.rows.detect import detect

Q = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}


def converted(row: Any, **data: Any) -> Conversation:
    """The conversation that a row becomes, as the first of its file; keywords are fields of `data`."""
    found = detect([row], DataSpec(**data)).convert(row)
    assert isinstance(found, Conversation)
    return found
