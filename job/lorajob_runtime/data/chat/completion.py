"""The completion: what a finished conversation has behind a prompt, as the chat template writes it.

A prompt is often no prefix of the finished conversation, because it ends in a thought that the template does not show
of the answer, or shows with other blanks.
"""

from __future__ import annotations

from lorajob_runtime.data.chat.reasoning import opens_thought
from lorajob_runtime.models.chat_families import CLOSE_THOUGHT, OPEN_THOUGHT

_LONGEST_END = 64
"""Within so many last characters of a prompt the thought begins that it opens or has empty."""
_CLOSING = f"\n{CLOSE_THOUGHT}\n\n"


def completion(prompt: str, finished: str, thought: str = "") -> str | None:
    """The text that leads from the prompt to the end of the finished conversation; None when there is none.

    `thought` is one that the template leaves out: it goes in front, closed, and opened where the prompt does not.
    """
    if finished.startswith(prompt):
        rest = finished[len(prompt) :]
        return rest if not thought else f"{_opening(prompt)}{thought}{_CLOSING}{rest}"
    begins = _thought_begins(prompt)
    if begins is None or not finished.startswith(prompt[:begins]):
        return None
    rest = finished[begins:]
    opened = opens_thought(prompt)
    if rest.startswith(OPEN_THOUGHT):
        shown = rest[len(OPEN_THOUGHT) :]
        if opened:
            return shown.lstrip("\n")
        empty, _, answer = shown.partition(CLOSE_THOUGHT)
        return None if empty.strip() else answer.lstrip("\n")
    if opened:
        return f"{thought}{_CLOSING}{rest}"
    return rest if not thought else None


def _opening(prompt: str) -> str:
    return "" if opens_thought(prompt) else f"{OPEN_THOUGHT}\n"


def _thought_begins(prompt: str) -> int | None:
    """Where the open or empty thought begins that a prompt ends in."""
    place = prompt.rfind(OPEN_THOUGHT, max(0, len(prompt) - _LONGEST_END))
    if place < 0 or prompt[place + len(OPEN_THOUGHT) :].replace(CLOSE_THOUGHT, "", 1).strip():
        return None
    return place


def common(one: str, other: str) -> int:
    """How many first characters two texts share."""
    both = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in both if a != b), min(len(one), len(other)))
