"""Which form a file has, what becomes of rows that are not of it, and that no row makes a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import COLUMN_ROLES, DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text
from lorajob_runtime.data.rows.detect import detect

TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
SAID = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (
            {"instruction": "Q", "input": "", "output": "A"},
            "detected as alpaca, user = instruction + input, answer = output",
        ),
        ({"id": 1, "input": "Q", "output": "A", "reference": ["x"]}, "detected as qa, user = input, answer = output"),
        ({"conversations": TURNS, "tools": "[]"}, "detected as sharegpt, turns in conversations"),
        ({"conversations": SAID}, "detected as messages, turns in conversations"),
        ({"messages": SAID}, "detected as messages, turns in messages"),
        ({"messages": TURNS}, "detected as sharegpt, turns in messages"),
        ({"messages": '[{"role": "user", "content": "Q"}]'}, "detected as messages, turns in messages"),
        (TURNS, "detected as sharegpt, each row a list of turns"),
        ({"text": "Once"}, "detected as text, text trained whole"),
    ],
)
def test_the_form_is_detected_and_said_in_a_line(row: object, verdict: str) -> None:
    assert detect([row], DataSpec()).verdict == verdict


def test_most_of_the_rows_decide() -> None:
    rows = [{"text": "x"}, {"instruction": "Q", "output": "A"}, {"instruction": "Q", "output": "A"}]
    assert detect(rows, DataSpec()).name == "alpaca"


def test_the_form_can_be_forced() -> None:
    row = {"instruction": "I", "input": "Q", "output": "A", "text": "T"}
    forced = detect([row], DataSpec(format="text"))
    assert forced.convert(row) == Text("T")
    assert forced.verdict == "as data.format says: text, text trained whole"


def test_a_file_of_no_known_form_says_what_it_has_and_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        detect([{"frage": "Q", "antwort": "A"}], DataSpec())
    assert "the first row has the keys 'frage', 'antwort'" in caught.value.message
    assert "data.columns" in caught.value.message


def test_a_mapped_column_that_no_row_has_is_named() -> None:
    with pytest.raises(DataError, match="maps output to 'answr', a column that no row has"):
        detect([{"question": "Q", "answer": "A"}], DataSpec(columns={"input": "question", "output": "answr"}))


@pytest.mark.parametrize(
    ("first", "row", "reason"),
    [
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "ouput": "A"},
            "has the keys 'instruction', 'ouput': the form alpaca needs instruction and output",
        ),
        ({"instruction": "Q", "output": "A"}, 7, "is a number: it must be an object with instruction and output"),
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "output": ["A"]},
            "output is a list: it must be text",
        ),
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "output": True},
            "output is true or false: it must be text",
        ),
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "output": "A", "history": "x"},
            "history is text that is not JSON",
        ),
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "output": "A", "history": [["x"]]},
            "history must be a list of",
        ),
        (
            {"conversations": TURNS},
            {"conversation_no": 3},
            "has the keys 'conversation_no': the form sharegpt needs conversations or messages",
        ),
        (
            {"conversations": TURNS},
            {"conversations": {"a": 1}},
            "the conversation is an object: it must be a list of turns",
        ),
        ({"conversations": TURNS}, {"conversations": [["human", "Q"]]}, "turn 1 is a list"),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": None, "value": "x"}]},
            "turn 1 does not say whose it is: it needs from and value",
        ),
        (
            {"instruction": "Q", "output": "A"},
            {"instruction": "Q", "output": b"A"},
            "output is binary data: it must be text",
        ),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": "robot", "value": "x"}]},
            "turn 1 is from 'robot': it must be one of",
        ),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": "human", "text": "x"}]},
            "turn 1 has the keys 'from', 'text': it needs value or content",
        ),
        ({"conversations": TURNS}, {"conversations": TURNS, "tools": "nope"}, "tools is text that is not JSON"),
        ({"conversations": TURNS}, {"conversations": TURNS, "tools": {"a": 1}}, "tools is an object"),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": "function_call", "value": "f(1)"}]},
            "turn 1 is text that is not JSON",
        ),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": "function_call", "value": "{}"}]},
            "turn 1 calls no function by name",
        ),
        (
            {"conversations": TURNS},
            {"conversations": [{"from": "function_call", "value": '{"name": "f", "arguments": "[1]"}'}]},
            "must be an object",
        ),
        (
            {"messages": SAID},
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "turn 1 has a part that is not text",
        ),
    ],
)
def test_a_row_that_is_not_of_the_form_says_why(first: object, row: object, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        detect([first], DataSpec()).convert(row)
    assert reason in caught.value.reason
    assert not caught.value.droppable


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": " ", "input": "", "output": "A"}, "empty instruction"),
        ({"instruction": "Q", "output": "\n"}, "empty output"),
        ({"instruction": "Q", "output": None}, "empty output"),
        ({"instruction": "Q", "output": float("nan")}, "empty output"),
        ({"input": "", "output": "A"}, "empty input"),
        ({"conversations": [{"from": "human", "value": "Q"}]}, "no answer"),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": ""}]}, "empty answer"),
        ({"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "A"}]}, "empty question"),
        ({"conversations": [{"from": "gpt", "value": "A"}]}, "an answer without a question"),
        ({"text": " "}, "empty text"),
    ],
)
def test_a_row_with_nothing_to_learn_is_dropped_with_its_reason(row: object, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        detect([row], DataSpec()).convert(row)
    assert (caught.value.reason, caught.value.droppable) == (reason, True)


def test_numbers_become_text() -> None:
    row = {"input": 7, "output": 0.5}
    converted = detect([row], DataSpec()).convert(row)
    assert isinstance(converted, Conversation)
    assert [message["content"] for message in converted.messages] == ["7", "0.5"]


def test_openai_tool_calls_keep_their_arguments_as_an_object() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}}
    row = {
        "messages": [
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": {"y": 1}},
            {"role": "assistant", "content": "A"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    converted = detect([row], DataSpec()).convert(row)
    assert isinstance(converted, Conversation)
    assert converted.messages[1:3] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": None}}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"y": 1}'},
    ]
    assert converted.tools == row["tools"]


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_keys = st.sampled_from(
    [
        *(*COLUMN_ROLES, "conversations", "tools", "from", "value", "role", "content", "tool_calls", "name"),
        *("conversation", "human", "assistant", "prompt", "completion", "question", "answer", "answers", "query"),
        *("response", "context", "functions", "function", "arguments", "type", "weight", "loss", "train", "masked"),
        *(
            "train_detail",
            "thinking",
            "reasoning",
            "chosen",
            "rejected",
            "label",
            "kto_tag",
            "images",
            "image",
            "Output",
        ),
    ]
)
_names = st.sampled_from(
    ["human", "gpt", "user", "assistant", "function_call", "tool", "system", "{}", "[[]]", "[{}]", '[{"role": "user"}]']
)
_anything = st.recursive(
    _scalars | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@given(
    rows=st.lists(_anything, min_size=1, max_size=4),
    form=st.sampled_from(["auto", "alpaca", "qa", "sharegpt", "messages", "text"]),
)
def test_no_row_at_all_makes_a_traceback(rows: list[Any], form: Any) -> None:
    try:
        detected = detect(rows, DataSpec(format=form))
    except DataError:
        return
    for row in rows:
        try:
            converted = detected.convert(row)
        except RowError:
            continue
        assert isinstance(converted, Text) or converted.messages[-1]["role"] == "assistant"


_FUNCTION = {"name": "f", "parameters": {}}
_ASKS = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "answer": "A", "api": [_FUNCTION], "tools": [{"name": "other"}]},
        {"instruction": "Q", "output": "A", "api": json.dumps([_FUNCTION])},
        _ASKS | {"api": [_FUNCTION]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "api": _FUNCTION},
    ],
)
def test_a_column_of_any_name_may_describe_the_tools(row: dict[str, Any]) -> None:
    form = detect([row], DataSpec(columns={"tools": "api"}))
    converted = form.convert(row)

    assert isinstance(converted, Conversation)
    assert converted.tools == [{"type": "function", "function": _FUNCTION}]
    assert converted.aside.unused == ({"column tools"} if "tools" in row else set())
    assert "tools in api" in form.verdict or "tools = api" in form.verdict


@pytest.mark.parametrize("asks", [("question", "answer"), ("instruction", "output"), ("Frage", "Antwort")])
def test_a_column_of_any_name_may_have_the_thought(asks: tuple[str, str]) -> None:
    row = {asks[0]: "Q", "cot": "T", "thinking": "other", asks[1]: "A"}
    own = {"input": asks[0], "output": asks[1]} if asks[0] == "Frage" else {}

    form = detect([row], DataSpec(columns={"thought": "cot"} | own))
    converted = form.convert(row)

    assert isinstance(converted, Conversation)
    assert converted.messages[-1] == {"role": "assistant", "content": "A", "reasoning_content": "T"}
    assert converted.aside.unused == {"column thinking"}
    assert "thought = cot" in form.verdict


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        (
            _ASKS | {"cot": "T"},
            {"thought": "cot"},
            "thought to 'cot', and rows of the form messages have no thought, ",
        ),
        (_ASKS | {"h": []}, {"history": "h"}, "history to 'h', and rows of the form messages have no history"),
        ({"text": "T", "s": "S"}, {"system": "s"}, "system to 's', and rows of the form text have no system"),
        ({"text": "T", "api": []}, {"tools": "api"}, "tools to 'api', and rows of the form text have no tools"),
    ],
)
def test_a_column_for_a_role_that_the_form_has_not_is_refused(
    row: dict[str, Any], columns: dict[str, str], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        detect([row], DataSpec(columns=columns))
    assert f"data.columns maps {said}" in caught.value.message


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"output": "instruction"}, "none has all that it needs with data.columns output=instruction"),
        ({"system": "instruction"}, "none has all that it needs with data.columns system=instruction"),
        ({"messages": "output"}, "output is text that is not JSON"),
    ],
)
def test_columns_that_make_no_form_are_said(columns: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        detect([{"instruction": "Q", "output": "A"}], DataSpec(columns=columns))
    assert said in caught.value.message


def test_a_system_prompt_for_texts_is_said_to_have_no_place() -> None:
    assert detect([{"text": "T"}], DataSpec(system="S")).verdict.endswith("whole, and data.system has no place in it")
    assert detect([{"text": "T"}], DataSpec()).verdict.endswith("text trained whole")
