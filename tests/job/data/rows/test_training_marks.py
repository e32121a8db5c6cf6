"""Marks on turns that say what is trained: every spelling, value, place and form, and what only looks like one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.detect import detect
from lorajob_runtime.data.rows.turns import ASKED_FOR_OTHERS, CONTEXT_ONLY

SPELLINGS = [
    "weight",
    "loss",
    "loss_weight",
    "loss_scale",
    "train",
    "trainable",
    "training",
    "is_trainable",
    "train_on_turn",
    "output_with_loss",
]
INVERTED = ["masked", "mask"]
YES: list[Any] = [True, 1, 1.0, "true", "True", "1", "1.0", "yes"]
NO: list[Any] = [False, 0, 0.0, "false", "FALSE", "0", "0.0", "no"]
FORMS = [("sharegpt", "from", "value", "human", "gpt"), ("messages", "role", "content", "user", "assistant")]


def rounds(form: tuple[str, ...], first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two rounds; the two answers have what is given on them."""
    name, who, what, user, assistant = form
    column = "conversations" if name == "sharegpt" else "messages"
    return {
        column: [
            {who: user, what: "2+2?"},
            {who: assistant, what: "5"} | first,
            {who: user, what: "Wrong, again"},
            {who: assistant, what: "4"} | second,
        ]
    }


def converted(row: Any) -> Conversation:
    found = detect([row], DataSpec()).convert(row)
    assert isinstance(found, Conversation)
    return found


def trained(row: Any) -> list[str]:
    """The answers of a row that carry loss."""
    messages = converted(row).messages
    return [said["content"] for said in messages if said["role"] == "assistant" and said.get("trained") is not False]


@pytest.mark.parametrize("form", FORMS, ids=[form[0] for form in FORMS])
@pytest.mark.parametrize(("spelling", "value"), list(itertools.product(SPELLINGS, [*YES, *NO])))
def test_an_answer_is_trained_or_context_as_its_mark_says(form: tuple[str, ...], spelling: str, value: Any) -> None:
    both = ["5", "4"]
    is_trained = value in YES and not (isinstance(value, str) and value in NO)
    assert trained(rounds(form, {spelling: value}, {})) == (both if is_trained else ["4"])
    assert trained(rounds(form, {}, {spelling: value})) == (both if is_trained else ["5"])


@pytest.mark.parametrize(("spelling", "value"), list(itertools.product(INVERTED, [*YES, *NO])))
def test_a_mask_says_the_opposite(spelling: str, value: Any) -> None:
    is_masked = value in YES and not (isinstance(value, str) and value in NO)
    assert trained(rounds(FORMS[1], {spelling: value}, {})) == (["4"] if is_masked else ["5", "4"])


@pytest.mark.parametrize("spelling", [*SPELLINGS, *INVERTED])
@pytest.mark.parametrize("value", [None, "", float("nan")])
def test_a_null_says_nothing(spelling: str, value: Any) -> None:
    found = converted(rounds(FORMS[1], {spelling: value}, {}))
    assert trained(rounds(FORMS[1], {spelling: value}, {})) == ["5", "4"]
    assert not found.aside.unused


def test_a_masked_answer_stays_in_the_context_and_is_counted() -> None:
    found = converted(rounds(FORMS[1], {"weight": 0}, {"weight": 1}))
    assert [(said["role"], said.get("trained")) for said in found.messages] == [
        ("user", None),
        ("assistant", False),
        ("user", None),
        ("assistant", None),
    ]
    assert found.aside.notes == {CONTEXT_ONLY}
    assert not found.aside.unused


def test_a_row_ends_with_its_last_trained_answer() -> None:
    found = converted(rounds(FORMS[1], {"weight": 1}, {"weight": 0}))
    assert [said["content"] for said in found.messages] == ["2+2?", "5"]
    assert found.unanswered == 0


def test_a_row_whose_every_answer_is_masked_is_dropped() -> None:
    with pytest.raises(RowError) as caught:
        converted(rounds(FORMS[1], {"weight": 0}, {"train": False}))
    assert (caught.value.reason, caught.value.droppable) == ("every answer marked not to be trained", True)


@pytest.mark.parametrize("value", [0.5, 2, -1, "0.5"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_fraction_is_refused_by_name(spelling: str, value: Any) -> None:
    with pytest.raises(RowError, match=rf"turn 2 has {spelling} -?[\d.]+: it must be 0 or 1, as a turn is trained"):
        converted(rounds(FORMS[1], {spelling: value}, {}))


def test_a_list_of_weights_is_refused_by_name() -> None:
    with pytest.raises(RowError, match="turn 2 has loss_scale as a list: it must be 0 or 1"):
        converted(rounds(FORMS[1], {"loss_scale": [0, 1]}, {}))


@pytest.mark.parametrize("key", ["train_detail", "training_detail"])
def test_marks_on_parts_of_a_turn_are_refused_by_name(key: str) -> None:
    part = [{"begin_offset": 0, "end_offset": 3, "train": False}]
    with pytest.raises(RowError, match=rf"turn 2 trains parts of an answer \({key}\)"):
        converted(rounds(FORMS[0], {key: part}, {}))
    assert trained(rounds(FORMS[0], {key: []}, {key: None})) == ["5", "4"]


def test_marks_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RowError, match="turn 2 has train True and weight 0, which contradict each other"):
        converted(rounds(FORMS[1], {"weight": 0, "train": True}, {}))
    assert trained(rounds(FORMS[1], {"weight": 0, "train": False, "masked": True}, {})) == ["4"]


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_a_mark_that_asks_to_train_another_turn_is_said(role: str) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Q"},
            {"role": role, "content": "R", "weight": 1},
            {"role": "assistant", "content": "A"},
        ]
    }
    found = converted(row)
    assert found.aside.notes == {ASKED_FOR_OTHERS}
    assert all("trained" not in said for said in found.messages)


def test_a_mark_that_leaves_out_another_turn_goes_without_saying() -> None:
    row = {"messages": [{"role": "user", "content": "Q", "weight": 0}, {"role": "assistant", "content": "A"}]}
    assert (converted(row).aside.notes, converted(row).aside.unused) == (set(), set())


@pytest.mark.parametrize("role", ["function_call", "tool_call"])
def test_a_turn_that_calls_a_function_may_be_masked(role: str) -> None:
    turns = [
        {"from": "human", "value": "Q"},
        {"from": role, "value": '{"name": "f", "arguments": {}}', "loss": False},
        {"from": "observation", "value": "R"},
        {"from": "gpt", "value": "A"},
    ]
    messages = converted({"conversations": turns}).messages
    assert messages[1]["tool_calls"]
    assert [said.get("trained") for said in messages] == [None, False, None, None]


def test_rounds_as_one_turn_may_be_masked() -> None:
    row = {
        "conversation": [
            {"input": "2+2?", "output": "5", "output_with_loss": False},
            {"input": "Again", "output": "4"},
        ]
    }
    assert trained(row) == ["4"]


@pytest.mark.parametrize(
    ("key", "value"), [("training", "phase 1"), ("mask", "[MASK]"), ("weight", "heavy"), ("loss", "cross-entropy")]
)
def test_what_only_has_the_name_of_a_mark_is_listed_as_not_used(key: str, value: str) -> None:
    row = rounds(FORMS[1], {key: value}, {})
    assert trained(row) == ["5", "4"]
    assert converted(row).aside.unused == {f"turn key {key}"}


def test_what_is_trained_leaves_the_masked_answer_out(smollm2: Any, prepared: Any, expect_sequences: Any) -> None:
    result = prepared(smollm2, [rounds(FORMS[1], {"weight": 0}, {"weight": 1})], system="S")
    expect_sequences(
        smollm2,
        result.train,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n5<|im_end|>\n"
        "<|im_start|>user\nWrong, again<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧",
    )
    assert result.report.notes == (f"1 row: {CONTEXT_ONLY}",)


def test_a_masked_call_is_not_trained_where_calls_are_written_out(
    smollm2: Any, prepared: Any, expect_sequences: Any
) -> None:
    """A template without a form for calls has its messages rewritten, and the mark must live through it."""
    call = {"from": "function_call", "value": json.dumps({"name": "f", "arguments": {}}), "train": False}
    turns = [{"from": "human", "value": "Q"}, call, {"from": "human", "value": "R"}, {"from": "gpt", "value": "A"}]
    result = prepared(smollm2, [{"conversations": turns}], system="S")
    ids, targets = result.train.row(0)
    assert smollm2.tokenizer.decode(ids[targets].tolist()) == "A<|im_end|>"


@pytest.mark.parametrize("family", ["qwen3", "qwen25", "hunyuan", "glm", "minimax"])
def test_in_every_family_a_masked_answer_is_read_and_not_learned(
    family: str, prepared: Any, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)
    wrong, right = {"content": "WRONG"}, {"content": "RIGHT"}
    rows = prepared(model, [rounds(FORMS[1], wrong | {"weight": 0}, right | {"weight": 1})]).train
    assert len(rows) == 1
    ids, targets = rows.row(0)
    learned = model.tokenizer.decode(ids[targets].tolist())
    read = model.tokenizer.decode(ids[~targets].tolist())
    assert "RIGHT" in learned
    assert "WRONG" in read
    assert "WRONG" not in learned


@pytest.mark.parametrize("value", ["0", 0, False])
def test_marks_in_the_columns_of_other_forms_mean_nothing(value: Any) -> None:
    row = {"instruction": "Q", "output": "A", "weight": value}
    assert trained(row) == ["A"]
    assert converted(row).aside.unused == {"column weight"}
