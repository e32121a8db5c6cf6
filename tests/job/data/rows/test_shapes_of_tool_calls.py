"""Calls of functions, their results and descriptions, in every writing that published datasets have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from row_shapes import A, Q, converted

from lorajob_runtime.data.rows.conversation import RowError

CALL = {"name": "f", "arguments": {"x": 1}}
CALLED = {"type": "function", "function": CALL}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "event", "day": 1}], '[{"type": "event", "day": 1}]'),
        ({"temperature": 3}, '{"temperature": 3}'),
        ([1, "two"], '[1, "two"]'),
        (True, "true"),
        ([], "[]"),
        (None, ""),
        ([{"type": "text", "text": "3"}], "3"),
    ],
)
def test_the_result_of_a_tool_may_be_any_value(content: Any, text: str) -> None:
    assert converted({"messages": [Q, {"role": "tool", "content": content}, A]}).messages[1]["content"] == text


CALLS = ["function_call", "tool_call", "tool_calls", "function-call"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "value", [CALL, json.dumps(CALL), [CALL], json.dumps([CALL]), {**CALL, "arguments": '{"x": 1}'}]
)
def test_a_turn_that_is_a_call(name: str, value: Any) -> None:
    row = {"conversations": [{"from": "human", "value": "Q"}, {"from": name, "value": value}]}
    assert converted(row).messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALLED]}


@pytest.mark.parametrize("key", ["tool_calls", "function_call", "function_calls"])
@pytest.mark.parametrize(
    "value",
    [
        [CALLED],
        CALL,
        json.dumps([CALLED]),
        json.dumps(CALL),
        [json.dumps(CALLED)],
        [{"function": json.dumps(CALL)}],
        [{"name": "f", "arguments": '{"x": 1}'}],
        [{"name": "f", "arguments": json.dumps('{"x": 1}')}],
        [{"name": "f", "parameters": {"x": 1}}],
        json.dumps([{"type": "function", "function": {"name": "f", "arguments": json.dumps({"x": 1})}}]),
    ],
)
def test_calls_beside_what_is_said_in_every_writing(key: str, value: Any) -> None:
    messages = converted({"messages": [Q, {"role": "assistant", "content": None, key: value}]}).messages
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALLED]}


@pytest.mark.parametrize("nothing", [None, [], "", "[]", "null", {}])
@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_no_calls_in_every_writing(key: str, nothing: Any) -> None:
    assert converted({"messages": [Q, A | {key: nothing, "name": None}]}).messages == [Q, A]


def test_a_call_without_a_name_is_refused() -> None:
    with pytest.raises(RowError, match="turn 2 calls no function by name"):
        converted({"messages": [Q, {"role": "assistant", "tool_calls": '[{"name": null, "arguments": {}}]'}]})


@pytest.mark.parametrize(
    "row",
    [
        {"tools": [TOOL]},
        {"tools": json.dumps([TOOL])},
        {"tools": [json.dumps(TOOL)]},
        {"tools": [{"name": "f"}]},
        {"tools": TOOL},
        {"tools": json.dumps({"name": "f"})},
        {"functions": [{"name": "f"}]},
        {"functions": json.dumps([{"name": "f"}])},
        {"tools": "", "functions": [{"name": "f"}]},
        {"tools": [{"type": "function", "name": "f"}]},
        {"messages": [{"role": "system", "content": "S", "functions": json.dumps([{"name": "f"}])}, Q, A]},
    ],
)
def test_descriptions_of_functions_in_every_writing(row: dict[str, Any]) -> None:
    found = converted({"messages": [Q, A]} | row)
    assert found.tools == [TOOL]
    assert not found.aside.unused


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"function_declarations": [{"name": "f"}]}, {"type": "function", "function": "f"}]
)
def test_a_tool_that_describes_no_function_is_at_fault(tool: dict[str, Any]) -> None:
    said = f"tools has an entry with the keys {', '.join(map(repr, tool))}: it must describe a function that has a name"
    with pytest.raises(RowError, match=said):
        converted({"messages": [Q, A], "tools": [tool]})


def test_a_question_whose_answers_are_calls() -> None:
    row = {"id": 1, "query": "Q", "answers": json.dumps([CALL]), "tools": json.dumps([{"name": "f"}])}
    assert converted(row).messages == [Q, {"role": "assistant", "content": "", "tool_calls": [CALLED]}]
    text = {"query": "Q", "answers": "[1, 2]", "tools": json.dumps([{"name": "f"}])}
    assert converted(text).messages == [Q, {"role": "assistant", "content": "[1, 2]"}]
