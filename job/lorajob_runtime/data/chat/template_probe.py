"""Finds out what a chat template supports: it renders probes and looks for their words in the result.

A template's text tells little: it may name a field in a comment, or list tools and write no calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.text import truncate
from lorajob_runtime.data.chat.reasoning import opens_thought
from lorajob_runtime.data.rows.conversation import Message
from lorajob_runtime.models.chat_families import CLOSE_THOUGHT, OPEN_THOUGHT, SWITCH, THOUGHT_FIELDS

Render = Callable[..., str]
"""A template: messages, then `tools`, `parts` and the template's own options, to text. Raises what it raises."""

# words that no template has or changes
QUESTION, ANSWER = "harbourquestion", "harbouranswer"
_SECOND, _SYSTEM, _THOUGHT, _TOOL, _CALLED, _RESULT = (
    "harboursecond",
    "harboursystem",
    "harbourthought",
    "harbourtool",
    "harbourcalled",
    "harbourresult",
)

ASKED: Message = {"role": "user", "content": QUESTION}
ANSWERED: Message = {"role": "assistant", "content": ANSWER}
PROBE_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": _TOOL,
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "a place"}},
                "required": ["place"],
            },
        },
    }
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateFeatures:
    """`parts`: content must be a list of parts. `system`: a system turn in front has its place.

    `questions_in_a_row`: turns of the user need not alternate with the model's. `switch`: thinking can be switched.
    `thinks`: thoughts are something to this template. `thought_field`: the field of a message that it writes a thought
    from. `written_thought`: it takes one that stands before the answer for what it is, or leaves it there.
    `tools`: it lists functions and writes calls. `calls_without_tools`: calls also in a conversation that lists none.
    `arguments_as_text`: it wants arguments as JSON text. `results`: a turn of the role tool has its place.
    """

    parts: bool
    system: bool
    questions_in_a_row: bool
    switch: bool
    thinks: bool
    thought_field: str | None
    written_thought: bool
    tools: bool
    calls_without_tools: bool
    arguments_as_text: bool
    results: bool


def probe(render: Render) -> TemplateFeatures:
    """What a template shows of each kind of turn. Raises ModelError when it shows no question or no answer."""
    parts = _wants_parts(render)

    def shows(messages: Sequence[Message], *words: str, **options: Any) -> bool:
        rendered = _rendered(render, messages, parts=parts, **options)
        return rendered is not None and all(word in rendered for word in words)

    prompts = [
        _rendered(render, [ASKED], parts=parts, add_generation_prompt=True, **{SWITCH: on}) for on in (False, True)
    ]
    switch = prompts[0] != prompts[1]
    said = f"{OPEN_THOUGHT}\n{_THOUGHT}\n{CLOSE_THOUGHT}\n\n{ANSWER}"
    written = ANSWERED | {"content": said}
    fields = (name for name in THOUGHT_FIELDS if shows([ASKED, ANSWERED | {name: _THOUGHT}], _THOUGHT, ANSWER))
    field = next(fields, None)
    kept = shows([ASKED, written], _THOUGHT, ANSWER)
    if kept and field is not None:
        as_field = [ASKED, ANSWERED | {field: _THOUGHT}]
        kept = _rendered(render, [ASKED, written], parts=parts) == _rendered(render, as_field, parts=parts)
    as_history = [ASKED, written, ASKED | {"content": _SECOND}]
    cuts = any(shows(turns, ANSWER) and not shows(turns, _THOUGHT) for turns in ([ASKED, written], as_history))
    opens = any(prompt is not None and opens_thought(prompt) for prompt in prompts)
    as_text = not shows([ASKED, probe_call()], _CALLED, tools=PROBE_TOOLS)
    called = shows([ASKED, probe_call(as_text=as_text)], _CALLED, tools=PROBE_TOOLS)
    tools = called and shows([ASKED], QUESTION, _TOOL, tools=PROBE_TOOLS)
    asked = [ASKED, probe_call(as_text=as_text), _result()] if tools else [ASKED, ANSWERED, _result()]
    return TemplateFeatures(
        parts=parts,
        system=shows([{"role": "system", "content": _SYSTEM}, ASKED], _SYSTEM, QUESTION),
        questions_in_a_row=shows([ASKED, ASKED | {"content": _SECOND}], QUESTION, _SECOND),
        switch=switch,
        thinks=switch or opens or field is not None or cuts,
        thought_field=field,
        written_thought=kept,
        tools=tools,
        calls_without_tools=tools and shows([ASKED, probe_call(as_text=as_text)], _CALLED),
        arguments_as_text=tools and as_text,
        results=shows(asked, _RESULT, tools=PROBE_TOOLS if tools else None),
    )


def _wants_parts(render: Render) -> bool:
    faults = []
    for parts in (False, True):
        try:
            rendered = render([ASKED, ANSWERED], parts=parts)
        except Exception as error:  # noqa: BLE001 - a template is a program of the model's, and may raise anything
            faults.append(truncate(error, 160))
        else:
            missing = [word for word in (QUESTION, ANSWER) if word not in rendered]
            if not missing:
                return parts
            faults.append("it leaves out what is " + ("asked" if QUESTION in missing else "answered"))
    raise ModelError(f"the model's chat template cannot render a conversation: {faults[0]}")


def _rendered(render: Render, messages: Sequence[Message], **options: Any) -> str | None:
    """None where the template refuses the messages."""
    try:
        return render(messages, **options)
    except Exception:  # noqa: BLE001 - a template is a program of the model's, and may raise anything
        return None


def probe_call(*, as_text: bool = False) -> Message:
    """An answer that is one call of the first of PROBE_TOOLS, its arguments an object or JSON text."""
    arguments: Any = f'{{"place": "{_CALLED}"}}' if as_text else {"place": _CALLED}
    # one of the families wants ids of nine letters and digits
    call = {"type": "function", "id": "abcdef123", "function": {"name": "lookup", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result() -> Message:
    return {"role": "tool", "name": "lookup", "tool_call_id": "abcdef123", "content": _RESULT}
