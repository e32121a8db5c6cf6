"""Questions and answers in columns, under the names and in the shapes that published datasets have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from row_shapes import A, Q, converted

from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.detect import detect


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


def test_the_own_names_of_a_form_go_before_others() -> None:
    row = {"instruction": "Q", "output": "A", "response": "other"}
    assert converted(row).messages == [Q, A]
    assert converted(row).aside.unused == {"column response"}
