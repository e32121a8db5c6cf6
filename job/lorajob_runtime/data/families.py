"""What chat templates do not say themselves: a few facts a family, recognised from the template's text.

Everything else (roles, default system prompts, thinking blocks in the history) is asked of the template by rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorajob_runtime.exits import ConfigError

SWITCH = "enable_thinking"
"""What templates call the switch for thinking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bridge:
    """For a prompt that is no prefix of the finished conversation, because it ends in `prompt_end`.

    Without that end it is one, and `answer_start` then leads from the prompt into the answer.
    """

    prompt_end: str
    answer_start: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """`marks` are texts that a template of this family has, all of them.

    `end_of_turn` is for templates that write nothing after an answer: what the model must produce to hand over, and
    what after a tool call. `switch_after_answer`: the thinking switch also writes behind a finished answer.
    """

    name: str
    marks: tuple[str, ...]
    bridges: tuple[Bridge, ...] = ()
    end_of_turn: str | None = None
    end_of_call: str | None = None
    switch_after_answer: bool = False


_OPEN_THOUGHT = Bridge(prompt_end="<think>\n", answer_start="\n</think>\n\n")
"""The prompt opens a thought and a finished answer shows none: the answer closes the empty thought first."""
_EMPTY_THOUGHT = Bridge(prompt_end="<think>\n\n</think>\n\n", answer_start="")

_FAMILIES = (
    Family(
        name="glm-4.5", marks=("[gMASK]<sop>", "<think></think>"), end_of_turn="<|user|>", end_of_call="<|observation|>"
    ),
    Family(name="minimax-m2", marks=("]~!b[", "]~b]ai"), bridges=(_OPEN_THOUGHT,)),
    Family(
        name="hunyuan",
        marks=("<|startoftext|>", "<|extra_0|>"),
        bridges=(Bridge(prompt_end="<think>\n\n</think>\n", answer_start=""),),
        switch_after_answer=True,
    ),
    Family(name="qwen3", marks=("<|im_start|>", "enable_thinking", "last_query_index"), bridges=(_EMPTY_THOUGHT,)),
    Family(name="qwen2.5", marks=("<|im_start|>", "You are Qwen, created by Alibaba Cloud")),
    Family(name="smollm2", marks=("<|im_start|>", "named SmolLM, trained by Hugging Face")),
    Family(name="chatml", marks=("<|im_start|>", "<|im_end|>"), bridges=(_EMPTY_THOUGHT, _OPEN_THOUGHT)),
)

UNKNOWN = Family(name="unknown", marks=(), bridges=(_EMPTY_THOUGHT, _OPEN_THOUGHT))
"""A template that is used as it is."""


def recognise(template: str) -> Family:
    """The family of a chat template's text; UNKNOWN for any other."""
    for family in _FAMILIES:
        if all(mark in template for mark in family.marks):
            return family
    return UNKNOWN


def can_think(template: str) -> bool:
    """Whether a chat template has a thinking mode: a switch for it, or a thought that its prompt opens."""
    return SWITCH in template or "<think>" in template


def refuse_thinking(model: str) -> ConfigError:
    """The error for thinking asked of a model that cannot."""
    return ConfigError(f"data.thinking is true: {model} has no thinking mode, so it must be false or left out")
