"""Rows that are made for another kind of training are refused by name; what only looks like them is not."""

from __future__ import annotations

from typing import Any

import pytest

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.conversation import Conversation, RowError, Text
from lorajob_runtime.data.rows.detect import detect

ASKED = {"role": "user", "content": "Are birds real?"}
GOOD = {"role": "assistant", "content": "Yes."}
BAD = {"role": "assistant", "content": "No."}
HUMAN = {"from": "human", "value": "Are birds real?"}

PREFERENCE = "these are preference rows: "
KTO = "these are KTO rows: "
KINDS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        f"{PREFERENCE}'chosen', 'rejected'",
        "input=prompt,output=chosen",
    ),
    ({"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}, PREFERENCE, "input=prompt,output=chosen"),
    ({"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}, PREFERENCE, "messages=chosen"),
    (
        {"prompt": "Q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]},
        PREFERENCE,
        "messages=chosen",
    ),
    ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q"}, PREFERENCE, "text=chosen"),
    (
        {
            "conversations": [HUMAN],
            "chosen": {"from": "gpt", "value": "Yes"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        PREFERENCE,
        "input=conversations,output=chosen",
    ),
    ({"instruction": "Q", "input": "", "chosen": "A", "rejected": "B"}, PREFERENCE, "output=chosen"),
    ({"instruction": "Q", "input": "In", "chosen": "A", "rejected": "B"}, PREFERENCE, "output=chosen"),
    ({"instruction": "Q", "chosen": "A", "rejected": "B"}, PREFERENCE, "output=chosen"),
    (
        {
            "input": {"messages": [ASKED], "tools": [{"name": "f"}], "parallel_tool_calls": True},
            "preferred_output": [GOOD],
            "non_preferred_output": [BAD],
        },
        PREFERENCE,
        "input=input,output=preferred_output",
    ),
    (
        {"input": {"messages": [ASKED]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        PREFERENCE,
        "input=input,output=preferred_output",
    ),
    ({"messages": [ASKED, GOOD], "rejected_response": "No."}, f"{PREFERENCE}'rejected_response'", "messages=messages"),
    ({"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]}, PREFERENCE, "messages=messages"),
    ({"query": "Q", "response": "A", "rejected_response": "B"}, PREFERENCE, "output=response"),
    ({"messages": [ASKED, BAD], "label": False}, f"{KTO}'label'", "messages=messages"),
    ({"prompt": "Q", "completion": "A", "label": True}, f"{KTO}'label'", "output=completion"),
    ({"prompt": "Q", "completion": "A", "label": "False"}, f"{KTO}'label'", "output=completion"),
    ({"prompt": "Q", "completion": "A", "label": 1}, f"{KTO}'label'", "output=completion"),
    ({"prompt": "Q", "completion": "A", "label": "0"}, f"{KTO}'label'", "output=completion"),
    ({"instruction": "Q", "output": "A", "kto_tag": False}, f"{KTO}'kto_tag'", "output=output"),
    ({"instruction": "Q", "output": "A", "kto_tag": 1}, f"{KTO}'kto_tag'", "output=output"),
    (
        {"question": "Q", "chosen": "A", "reject": "B"},
        f"{PREFERENCE}'chosen', 'reject'",
        "input=question,output=chosen",
    ),
]


@pytest.mark.parametrize(("row", "said", "columns"), KINDS)
def test_a_file_of_such_rows_is_refused_with_what_can_be_done(row: dict[str, Any], said: str, columns: str) -> None:
    with pytest.raises(DataError) as caught:
        detect([row] * 3, DataSpec())
    assert caught.value.message.startswith(said)
    assert caught.value.hint.endswith(f"--columns {columns}")


@pytest.mark.parametrize(("row", "columns"), [(row, columns) for row, _, columns in KINDS])
def test_what_the_hint_advises_trains_the_answer_that_it_names(row: dict[str, Any], columns: str) -> None:
    data = DataSpec(columns=dict(part.split("=") for part in columns.split(",")))
    found = detect([row], data).convert(row)
    said = found.text if isinstance(found, Text) else found.messages[-1]["content"]
    if isinstance(found, Conversation):
        assert (found.tools is not None) == ("tools" in str(row))
        assert not found.aside.unused & {"column input", "column instruction", "column prompt", "column system"} or (
            "messages" in data.columns
        )
    assert said.startswith(("A", "Yes", "\n\nHuman", "No." if row.get("label") is False else "A"))


@pytest.mark.parametrize(
    ("row", "said"), [(row, said) for row, said, _ in KINDS if isinstance(row.get("label"), bool | None)]
)
def test_one_such_row_among_others_is_at_fault(row: dict[str, Any], said: str) -> None:
    form = detect([{"messages": [ASKED, GOOD]}] * 3, DataSpec())
    with pytest.raises(
        RowError, match="is a preference row" if said.startswith(PREFERENCE) else "is a KTO row"
    ) as caught:
        form.convert({"messages": [ASKED, GOOD]} | row)
    assert not caught.value.droppable


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"messages": [{"role": "user", "content": "<image>What?"}, GOOD], "images": ["cat.jpg"]}, "images"),
        ({"instruction": "Q", "output": "A", "images": "cat.jpg"}, "images"),
        ({"messages": [ASKED, GOOD], "videos": ["a.mp4"]}, "videos"),
        ({"messages": [ASKED, GOOD], "audios": ["a.wav"]}, "audios"),
        ({"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nQ"}]}, "image"),
        ({"question": "Q", "answer": "A", "image": {"bytes": b"x", "path": None}}, "image"),
    ],
)
def test_rows_with_pictures_are_refused_by_name(row: dict[str, Any], column: str) -> None:
    with pytest.raises(DataError, match=f"these rows have '{column}': only text can be trained here"):
        detect([row], DataSpec())


@pytest.mark.parametrize("place", ["<bbox>", "<ref-object>"])
def test_rows_whose_text_has_places_for_what_another_column_has_are_refused(place: str) -> None:
    objects = {"ref": ["sheep"], "bbox": [[1, 2, 3, 4]]}
    row = {"messages": [ASKED, {"role": "assistant", "content": f"At {place}."}]}
    with pytest.raises(DataError, match=f"these rows have 'objects', which belong in place of {place} in the text"):
        detect([row | {"objects": objects}], DataSpec())
    for harmless in ({}, {"objects": None}, {"objects": []}):
        assert isinstance(detect([row | harmless], DataSpec()).convert(row | harmless), Conversation)
    assert isinstance(
        detect([{"messages": [ASKED, GOOD], "objects": ["a"]}], DataSpec()).convert({"messages": [ASKED, GOOD]}),
        Conversation,
    )


@pytest.mark.parametrize("sort", ["image_url", "image", "input_audio", "video"])
def test_a_part_of_a_message_that_is_no_text_is_refused_by_its_type(sort: str) -> None:
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": sort, sort: "x"}]}, GOOD]}
    with pytest.raises(
        RowError, match=rf"turn 1 has a part that is not text \({sort}\): only text can be trained here"
    ):
        detect([row], DataSpec()).convert(row)


@pytest.mark.parametrize("sort", ["tool_use", "tool_result"])
def test_a_call_in_parts_is_said_to_be_written_in_another_way(sort: str) -> None:
    row = {"messages": [{"role": "user", "content": [{"type": sort, "content": "x"}]}, GOOD]}
    with pytest.raises(RowError, match=f"turn 1 has a part {sort}: write calls as tool_calls, results as turns"):
        detect([row], DataSpec()).convert(row)


def test_one_label_that_is_a_number_tells_nothing_and_many_do() -> None:
    row = {"prompt": "Q", "completion": "A", "label": 1}
    form = detect([row | {"label": 2}] * 3 + [row], DataSpec())
    assert form.convert(row).messages[-1]["content"] == "A"


@pytest.mark.parametrize(
    "row",
    [
        {"text": "good film", "label": 1},
        {"text": "good film", "label": True},
        {"instruction": "Q", "output": "A", "label": 0},
        {"prompt": "Q", "completion": "A", "label": 2},
        {"instruction": "Q", "output": "A", "label": "positive"},
        {"instruction": "Q", "output": "A", "label": None},
        {"instruction": "Is it so?", "output": "True", "label": "True"},
        {"instruction": "Q", "output": "A", "chosen": True},
        {"instruction": "Q", "output": "A", "chosen": "B", "rejected": None},
        {"instruction": "Q", "output": "A", "rejected": False},
        {"instruction": "Q", "output": "A", "rejected_response": ""},
        {"instruction": "Q", "output": "A", "kto_tag": None},
        {"instruction": "What is <image> in SVG?", "output": "A tag"},
        {"instruction": "Q", "output": "A", "images": []},
        {"instruction": "Q", "output": "A", "images": [None]},
        {"instruction": "Q", "output": "A", "image": "https://example.org/a.png"},
        {"instruction": "Q", "output": "A", "image": {"bytes": None, "path": None}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q", "image_url": None}]}, GOOD]},
        {"text": "T", "message_id": 1, "role": "author"},
    ],
)
def test_what_only_looks_like_it_is_trained(row: dict[str, Any]) -> None:
    assert isinstance(detect([row], DataSpec()).convert(row), Conversation | Text)


def test_trees_of_single_messages_are_refused_by_name() -> None:
    row = {"message_id": "1", "parent_id": None, "text": "Q", "role": "prompter", "lang": "en"}
    with pytest.raises(DataError, match="these are single messages of trees of conversations"):
        detect([row], DataSpec())
