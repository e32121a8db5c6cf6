"""Conversations in turns, in the spellings and shapes that published datasets have: roles, refusals, thoughts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from row_shapes import A, Q, converted

from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.detect import detect


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"conversation": [{"human": "Q", "assistant": "A"}, {"human": "Q", "assistant": "A"}]}, [Q, A, Q, A]),
        (
            {"system": "S", "conversation": [{"human": "Q", "assistant": "A"}]},
            [{"role": "system", "content": "S"}, Q, A],
        ),
        (
            {"conversation": [{"system": "S", "input": "Q", "output": "A"}, {"input": "Q", "output": "A"}]},
            [{"role": "system", "content": "S"}, Q, A, Q, A],
        ),
        ({"conversations": [{"role": "user", "value": "Q"}, {"role": "assistant", "value": "A"}]}, [Q, A]),
        ({"conversations": [{"from": None, **Q, "value": None}, {"from": None, **A}]}, [Q, A]),
        ({"messages": {"role": ["user", "assistant"], "content": ["Q", "A"]}}, [Q, A]),
        ({"messages": [json.dumps(Q), json.dumps(A)]}, [Q, A]),
        ({"messages": json.dumps([Q, A])}, [Q, A]),
        ({"messages": [[Q, A]]}, [Q, A]),
        ({"Messages": [Q, A]}, [Q, A]),
        ({"messages": [Q, {"role": "assistant", "content": [{"text": "A"}]}]}, [Q, A]),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "value": "Q"}]},
                    {
                        "role": "assistant",
                        "content": [{"type": "reasoning", "value": "T"}, {"type": "text", "value": "A"}],
                        "loss_weight": 1.0,
                    },
                ]
            },
            [Q, A | {"reasoning_content": "T"}],
        ),
    ],
)
def test_turns_in_other_shapes(row: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    assert converted(row).messages == messages


USERS = ["user", "human", "User", "HUMAN", "prompter"]
ASSISTANTS = ["assistant", "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "Assistant", "GPT", " gpt "]
SYSTEMS = ["system", "developer", "System"]
TOOLS = [
    *("tool", "function", "observation", "observations", "tool_response", "function_response", "tool_result"),
    *("environment", "ipython", "tool-response"),
]


@pytest.mark.parametrize(("who", "what"), [("from", "value"), ("role", "content")])
@pytest.mark.parametrize(
    ("name", "role"),
    [(name, "user") for name in USERS]
    + [(name, "assistant") for name in ASSISTANTS]
    + [(name, "system") for name in SYSTEMS]
    + [(name, "tool") for name in TOOLS],
)
def test_roles_in_every_spelling(who: str, what: str, name: str, role: str) -> None:
    row = {"messages": [{who: "user", what: "Q"}, {who: name, what: "X"}, {who: "assistant", what: "A"}]}
    assert converted(row).messages[1] == {"role": role, "content": "X"}


@pytest.mark.parametrize("role", ["", None])
def test_a_turn_without_a_role_is_refused(role: Any) -> None:
    with pytest.raises(RowError, match=r"turn 2 does not say whose it is: it needs from and value, or role and conte"):
        converted({"conversations": [{"from": "human", "value": "Q"}, {"from": role, "value": "A"}]})


@pytest.mark.parametrize("role", ["robot", " ", 7])
def test_a_role_that_nobody_knows_is_refused_with_the_list(role: Any) -> None:
    with pytest.raises(RowError, match=r"turn 2 is from '.*': it must be one of system, developer, human"):
        converted({"conversations": [{"from": "human", "value": "Q"}, {"from": role, "value": "A"}]})


def test_the_column_with_turns_in_it_is_read_of_two() -> None:
    form = detect([{"messages": [Q, A], "conversations": None}], DataSpec())
    assert form.convert({"messages": None, "conversations": [Q, A]}) == form.convert({"messages": [Q, A]})


REFUSED = "I cannot help with that."


@pytest.mark.parametrize(
    "said",
    [
        {"content": None, "refusal": REFUSED},
        {"content": "", "refusal": REFUSED},
        {"refusal": REFUSED},
        {"content": [{"type": "refusal", "refusal": REFUSED}]},
    ],
)
def test_a_refusal_is_what_the_assistant_says(said: dict[str, Any]) -> None:
    found = converted({"messages": [Q, {"role": "assistant"} | said]})
    assert found.messages == [Q, {"role": "assistant", "content": REFUSED}]
    assert not found.aside.unused


def test_a_refusal_beside_an_answer_is_not_used() -> None:
    found = converted({"messages": [Q, A | {"refusal": REFUSED}]})
    assert (found.messages, found.aside.unused) == ([Q, A], {"turn key refusal"})


THOUGHTS = ["reasoning_content", "reasoning", "thinking", "thoughts", "thought"]


@pytest.mark.parametrize("key", THOUGHTS)
@pytest.mark.parametrize(
    "turns", [[Q, A], [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]], ids=["messages", "sharegpt"]
)
def test_a_thought_in_a_field_of_its_own(key: str, turns: list[dict[str, Any]]) -> None:
    found = converted({"messages": [turns[0], turns[1] | {key: "T"}]})
    assert found.messages == [Q, A | {"reasoning_content": "T"}]
    assert not found.aside.unused


@pytest.mark.parametrize("key", THOUGHTS)
def test_a_thought_that_is_in_the_answer_too_is_not_there_twice(key: str) -> None:
    said = {"role": "assistant", "content": "<think>\nT\n</think>\n\nA"}
    found = converted({"messages": [Q, said | {key: "T"}]})
    assert found.messages == [Q, said]
    assert found.aside.unused == {f"turn key {key}"}


@pytest.mark.parametrize("key", THOUGHTS)
@pytest.mark.parametrize("nothing", [None, "", " "])
def test_no_thought(key: str, nothing: Any) -> None:
    assert converted({"messages": [Q, A | {key: nothing}]}).messages == [Q, A]
