"""Which family a chat template is of, by its text, and the words that the templates of all families share."""

from __future__ import annotations

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.models import families
from lorajob_runtime.models.families.family import ChatFormat, Family

OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"
"""How every family that thinks writes a thought into its text."""

SWITCH = "enable_thinking"
"""What templates call the switch for thinking."""

THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that templates read a thought from, the commonest first."""

CHATML = Family(name="chatml", chat=ChatFormat(signatures=("<|im_start|>", "<|im_end|>")))
"""A format that templates of many families share."""

UNKNOWN = Family(name="unknown")
"""A template that is used as it is."""


def detect(template: str) -> Family:
    """The family of a chat template's text; UNKNOWN for any other."""
    for family in (*families.ALL, CHATML):
        if family.chat.signatures and all(each in template for each in family.chat.signatures):
            return family
    return UNKNOWN


def may_think(template: str) -> bool:
    """Whether a chat template's text has any sign of a thinking mode; whether it has one only rendering shows."""
    return any(sign in template for sign in (SWITCH, OPEN_THOUGHT, CLOSE_THOUGHT, *THOUGHT_FIELDS))


def refuse_thinking(model: str) -> ConfigError:
    """The error for thinking asked of a model that cannot."""
    return ConfigError(
        f"data.thinking is true: {model} has no thinking mode, so it must be false or left out", path="data.thinking"
    )
