"""Which form the rows of a file have; a file of none is refused with the reason, one of two asked about."""

from __future__ import annotations

from typing import Any

import pytest
from row_shapes import A, Q, converted

from golden.said import Said
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.detect import detect


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


def test_a_reading_that_was_not_taken_is_said(said: Said) -> None:
    row = {"problem": "Q", "solution": "A", "messages": [Q, A]}
    found = detect([row], DataSpec())
    assert (found.name, found.convert(row).messages) == ("messages", [Q, A])
    said(found.verdict)
    assert detect([row], DataSpec(format="qa")).convert(row) == Conversation(messages=[Q, A])


def test_a_few_rows_without_a_conversation_make_no_file_of_texts() -> None:
    rows = [{"messages": [Q, A], "text": "QA"}] * 7 + [{"messages": [], "text": "QA"}] * 3
    assert detect(rows, DataSpec()).name == "messages"
    assert detect([*rows[:1], *rows[7:]], DataSpec()).name == "text"
