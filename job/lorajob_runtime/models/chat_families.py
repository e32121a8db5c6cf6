"""What chat templates do not say themselves: a few facts a family, recognised from the template's text.

Everything else (roles, default system prompts, thinking blocks in the history) is asked of the template by rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorajob_runtime.contract.errors import ConfigError

OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"
"""How every family that thinks writes a thought into its text."""

SWITCH = "enable_thinking"
"""What templates call the switch for thinking."""

THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that templates read a thought from, the commonest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """`marks` are texts that a template of this family has, all of them.

    `end_of_turn` is for templates that write nothing after an answer: what the model must produce to hand over, and
    what after a tool call. `switch_after_answer`: the thinking switch also writes behind a finished answer.
    """

    name: str
    marks: tuple[str, ...]
    end_of_turn: str | None = None
    end_of_call: str | None = None
    switch_after_answer: bool = False


_FAMILIES = (
    Family(
        name="glm-4.5", marks=("[gMASK]<sop>", "<think></think>"), end_of_turn="<|user|>", end_of_call="<|observation|>"
    ),
    Family(name="minimax-m2", marks=("]~!b[", "]~b]ai")),
    Family(name="hunyuan", marks=("<|startoftext|>", "<|extra_0|>"), switch_after_answer=True),
    Family(name="qwen3", marks=("<|im_start|>", "enable_thinking", "last_query_index")),
    Family(name="qwen2.5", marks=("<|im_start|>", "You are Qwen, created by Alibaba Cloud")),
    Family(name="smollm2", marks=("<|im_start|>", "named SmolLM, trained by Hugging Face")),
    Family(name="chatml", marks=("<|im_start|>", "<|im_end|>")),
)

UNKNOWN = Family(name="unknown", marks=())
"""A template that is used as it is."""


def recognise(template: str) -> Family:
    """The family of a chat template's text; UNKNOWN for any other."""
    for family in _FAMILIES:
        if all(mark in template for mark in family.marks):
            return family
    return UNKNOWN


def may_think(template: str) -> bool:
    """Whether a chat template's text has any sign of a thinking mode; whether it has one only rendering shows."""
    return any(sign in template for sign in (SWITCH, OPEN_THOUGHT, CLOSE_THOUGHT, *THOUGHT_FIELDS))


def refuse_thinking(model: str) -> ConfigError:
    """The error for thinking asked of a model that cannot."""
    return ConfigError(f"data.thinking is true: {model} has no thinking mode, so it must be false or left out")
