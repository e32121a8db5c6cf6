"""Shapes of rows that published datasets have: each becomes what it means, or is refused with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.detect import detect

Q = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}
CALL = {"name": "f", "arguments": {"x": 1}}
CALLED = {"type": "function", "function": CALL}
TOOL = {"type": "function", "function": {"name": "f"}}


def converted(row: Any, **data: Any) -> Conversation:
    found = detect([row], DataSpec(**data)).convert(row)
    assert isinstance(found, Conversation)
    return found


@pytest.mark.parametrize(
    ("columns", "verdict"),
    [
        (("question", "answer"), "user = question, answer = answer"),
        (("Question", "Answer"), "user = Question, answer = Answer"),
        (("question", "response"), "user = question, answer = response"),
        (("query", "response"), "user = query, answer = response"),
        (("query", "answer"), "user = query, answer = answer"),
        (("prompt", "completion"), "user = prompt, answer = completion"),
        (("prompt", "response"), "user = prompt, answer = response"),
        (("prompt", "answer"), "user = prompt, answer = answer"),
        (("prompt", "output"), "user = prompt, answer = output"),
        (("problem", "solution"), "user = problem, answer = solution"),
        (("input", "target"), "user = input, answer = target"),
        (("input", "response"), "user = input, answer = response"),
        (("human", "assistant"), "user = human, answer = assistant"),
        (("user", "assistant"), "user = user, answer = assistant"),
        (("instruction", "response"), "user = instruction, answer = response"),
        (("INSTRUCTION", "RESPONSE"), "user = INSTRUCTION, answer = RESPONSE"),
        (("Instruction", "Output"), "user = Instruction, answer = Output"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_names_of_question_and_answer(columns: tuple[str, str], verdict: str, swapped: bool) -> None:
    asked, answered = columns
    row = {asked: "Q", answered: "A", "id": 1}
    row = dict(reversed(row.items())) if swapped else row
    form = detect([row], DataSpec())
    assert form.verdict.endswith(verdict)
    assert form.convert(row) == Conversation(messages=[Q, A])


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (
            {"instruction": "I", "context": "C", "response": "A", "category": "qa"},
            [{"role": "user", "content": "I\nC"}, A],
        ),
        ({"instruction": "Q", "context": "", "response": "A"}, [Q, A]),
        ({"instruction": "I", "input": "C", "response": "A"}, [{"role": "user", "content": "IC"}, A]),
        (
            {"prompt": "P", "query": "q", "response": "A", "history": [["Q", "A"]], "system": "S"},
            [{"role": "system", "content": "S"}, Q, A, {"role": "user", "content": "Pq"}, A],
        ),
        ({"query": "Q", "response": "A", "history": [Q, A]}, [Q, A, Q, A]),
        ({"query": "Q", "response": "A", "system_prompt": "S"}, [{"role": "system", "content": "S"}, Q, A]),
        ({"type": "GSM", "query": "Q", "original_question": "q", "response": "A"}, [Q, A]),
        ({"kind": "Cot", "input": "Q", "target": "A"}, [Q, A]),
        ({"problem": "Q", "solution": "A", "answer": "1"}, [Q, A]),
        ({"Question": "Q", "Complex_CoT": "T", "Response": "A"}, [Q, A | {"reasoning_content": "T"}]),
        ({"question": "Q", "reasoning": "T", "answer": "A"}, [Q, A | {"reasoning_content": "T"}]),
        (
            {"question": "Q", "reasoning": "T", "answer": "<think>T</think>A"},
            [Q, {"role": "assistant", "content": "<think>T</think>A"}],
        ),
    ],
)
def test_columns_become_messages(row: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    assert converted(row).messages == messages


@pytest.mark.parametrize("prompt", [[Q], Q, "Q"])
@pytest.mark.parametrize("completion", [[A], A, "A"])
def test_a_prompt_and_a_completion_may_be_messages(prompt: Any, completion: Any) -> None:
    assert converted({"prompt": prompt, "completion": completion}).messages == [Q, A]


def test_a_prompt_and_a_completion_may_be_messages_as_text() -> None:
    row = {"prompt": json.dumps([Q, A, Q]), "completion": json.dumps([A])}
    assert converted(row).messages == [Q, A | {"trained": False}, Q, A]
    about_json = {"prompt": json.dumps([Q]), "completion": "A list with one message."}
    assert converted(about_json).messages[0]["content"] == json.dumps([Q])


def test_answers_in_a_prompt_are_context() -> None:
    messages = converted({"prompt": [Q, A, Q], "completion": [A]}).messages
    assert messages == [Q, A | {"trained": False}, Q, A]


def test_a_prompt_that_is_a_list_of_anything_else_is_refused() -> None:
    with pytest.raises(RowError, match="prompt is a list: it must be text"):
        converted({"prompt": ["a", "b"], "completion": "A"})


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
CALLS = ["function_call", "tool_call", "tool_calls", "function-call"]


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


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "value", [CALL, json.dumps(CALL), [CALL], json.dumps([CALL]), {**CALL, "arguments": '{"x": 1}'}]
)
def test_a_turn_that_is_a_call(name: str, value: Any) -> None:
    row = {"conversations": [{"from": "human", "value": "Q"}, {"from": name, "value": value}]}
    assert converted(row).messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALLED]}


@pytest.mark.parametrize("role", ["", None])
def test_a_turn_without_a_role_is_refused(role: Any) -> None:
    with pytest.raises(RowError, match=r"turn 2 does not say whose it is: it needs from and value, or role and conte"):
        converted({"conversations": [{"from": "human", "value": "Q"}, {"from": role, "value": "A"}]})


@pytest.mark.parametrize("role", ["robot", " ", 7])
def test_a_role_that_nobody_knows_is_refused_with_the_list(role: Any) -> None:
    with pytest.raises(RowError, match=r"turn 2 is from '.*': it must be one of system, developer, human"):
        converted({"conversations": [{"from": "human", "value": "Q"}, {"from": role, "value": "A"}]})


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


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"instruction": "Q", " output": "A"},
            "the first row has the keys 'instruction', ' output'; the key ' output' has a space too many",
        ),
        ({"messages": "[{'role': 'user'}]"}, "messages is text that is not JSON but a Python literal"),
        ({"messages": "hello"}, "messages is text that is not JSON;"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["Q", "A"]}, "messages has text for a turn"),
        ({"conversations": {"turn_1": "x"}}, "conversations is an object: it must be a list of turns"),
        ({"messages": [{"speaker": "a", "says": "b"}]}, "the first turn in messages has the keys 'speaker', 'says'"),
        ({"role": "user", "content": "Q"}, "each row is a single turn"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "input_ids are tokens of some tokenizer"),
        ({"prompt": [Q], "reward_model": {}}, "prompt may be the question, but no key looks like its answer"),
        ({"version": 1, "data": [{"title": "a"}]}, "data is a list of objects: if these are the rows"),
        ({"id": "1", "data": ["Q", "A"]}, "data is a list of texts, and the turns of a conversation must say whose"),
        ({"system": "S", "chat": "USER: Q\n\nASSISTANT: A"}, "chat is a conversation written as one text"),
        (
            {"contents": [{"role": "model", "parts": [{"text": "A"}]}]},
            "contents has turns of role and parts, as",
        ),
        ({"request": {"messages": [Q]}, "response": {}}, "messages is inside request, and must be a key of the row"),
        ({"prompt": "Q", "responses": ["A", "B"]}, "prompt may be the question, but no key looks like its answer"),
        ({"0": {"input": "Q", "output": "A"}, "1": {"input": "Q", "output": "A"}}, "its rows are inside"),
        ({"a": {"input": "Q", "output": "A"}, "b": {"input": "Q", "output": "A"}}, "its rows are inside"),
        (
            {"segments": [{"label": False, "text": "Q"}, {"label": True, "text": "A"}]},
            "segments has parts of label and",
        ),
        (
            {"chat_history": [{"role": "USER", "message": "Q"}]},
            "chat_history has turns of 'role', 'message', and not of",
        ),
        ({"columns": ["input", "output"], "data": [["Q", "A"]]}, "its rows are inside"),
        ({"data": [{"input": "Q", "output": "A"}] * 2}, "data is a list of objects: if these are the rows"),
        ({"input|output": "Q|A"}, "'input|output' may be several columns"),
        ({"input": ["Q", "Q"], "output": ["A", "A"]}, "the file is one object with a whole column under each key"),
        ({"input": {"0": "Q"}, "output": {"0": "A"}}, "the file is one object with a whole column under each key"),
    ],
)
def test_a_file_of_no_form_says_why_the_nearest_one_failed(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        detect([row], DataSpec())
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "annotations": [{"result": []}], "data": {"prompt": "Q"}},
        {"columns": ["a"], "data": [["x"]]},
        {"a": {"x": 1}, "b": {"x": 2}},
    ],
)
def test_one_of_several_rows_is_not_taken_for_an_object_around_all_of_them(row: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        detect([row, row], DataSpec())
    assert "if these are the rows" not in caught.value.message
    assert "rows are inside" not in caught.value.message


def test_turns_under_another_name_are_refused_with_the_flag_that_reads_them() -> None:
    row = {"id": 1, "dialog": [Q, A]}
    with pytest.raises(DataError) as caught:
        detect([row], DataSpec())
    assert caught.value.hint == "say so: --columns messages=dialog"
    assert detect([row], DataSpec(columns={"messages": "dialog"})).name == "messages"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [{"instruction": "Q", "output": "A"}, {"messages": [Q, A]}],
            "has 'messages', and nothing where the form alpaca needs instruction and output",
        ),
        (
            [{"instruction": "Q", "output": "A", "messages": None}, {"instruction": None, "messages": [Q, A]}],
            "has 'messages', and nothing where the form alpaca needs instruction and output",
        ),
        (
            [{"messages": [Q, A]}, {"messages": None, "input": "Q", "output": "A"}],
            "has 'input', 'output', and nothing where the form messages needs conversations or messages",
        ),
        ([{"text": "T"}, {"messages": [Q, A]}], "has 'messages', and nothing where the form text needs text"),
    ],
)
def test_a_row_of_another_form_is_at_fault_and_not_empty(rows: list[dict[str, Any]], reason: str) -> None:
    form = detect([rows[0]] * 9, DataSpec())
    with pytest.raises(RowError) as caught:
        form.convert(rows[1])
    assert (caught.value.reason, caught.value.droppable) == (reason, False)


def test_the_column_with_turns_in_it_is_read_of_two() -> None:
    form = detect([{"messages": [Q, A], "conversations": None}], DataSpec())
    assert form.convert({"messages": None, "conversations": [Q, A]}) == form.convert({"messages": [Q, A]})


@pytest.mark.parametrize(
    ("row", "ways"),
    [
        ({"question": "Q", "answer": "1", "response": "A"}, "qa input=question output=answer, or as qa input=question"),
        ({"question": "Q", "answer": "1", "prompt": "P", "completion": "C"}, "or as qa input=prompt output=completion"),
        ({"instruction": "Q", "response": "A", "answer": "1"}, "or as alpaca instruction=instruction output=answer"),
    ],
)
def test_two_readings_that_fit_equally_are_asked_about(row: dict[str, Any], ways: str) -> None:
    with pytest.raises(DataError, match="the rows can be read in more ways than one: as") as caught:
        detect([row], DataSpec())
    assert ways in caught.value.message
    names = {"input": next(iter(row)), "output": list(row)[1]}
    assert converted(row, columns=names).messages[0] == Q


def test_a_reading_that_was_not_taken_is_said() -> None:
    row = {"problem": "Q", "solution": "A", "messages": [Q, A]}
    assert detect([row], DataSpec()).verdict == (
        "detected as messages, turns in messages; qa input=problem output=solution would fit as well "
        "(choose with data.format or data.columns)"
    )
    assert detect([row], DataSpec(format="qa")).convert(row) == Conversation(messages=[Q, A])


def test_the_own_names_of_a_form_go_before_others() -> None:
    row = {"instruction": "Q", "output": "A", "response": "other"}
    assert converted(row).messages == [Q, A]
    assert converted(row).aside.unused == {"column response"}


def test_a_few_rows_without_a_conversation_make_no_file_of_texts() -> None:
    rows = [{"messages": [Q, A], "text": "QA"}] * 7 + [{"messages": [], "text": "QA"}] * 3
    assert detect(rows, DataSpec()).name == "messages"
    assert detect([*rows[:1], *rows[7:]], DataSpec()).name == "text"
