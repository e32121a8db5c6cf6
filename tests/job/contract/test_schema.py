"""Reading dataclasses strictly: what is in lists and mappings too, and which field an error is about."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import ConfigError, UnknownFieldError
from lorajob_runtime.contract.schema import Reading


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    height: int
    kind: Literal["open", "closed"] = "open"


@dataclass(frozen=True, kw_only=True, slots=True)
class Usual:
    kind: Literal["open", "closed"] = "open"
    shelf: Shelf = dataclasses.field(default_factory=lambda: Shelf(height=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    shelves: tuple[Shelf, ...] = schema.read_as((), Reading(right="a list of shelves", null_is_default=True))
    labels: dict[str, dict[str, str]] = schema.read_as({}, Reading())
    corner: Shelf | None = None
    words: tuple[str, ...] = ()
    usual: dict[str, Any] = schema.read_as({}, Reading(part_of=Usual))


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    room: Room


WHOLE = {
    "room": {
        "shelves": [{"height": 2}, {"height": 3, "kind": "closed"}],
        "labels": {"wall": {"colour": "white"}},
        "corner": {"height": 1, "kind": "open"},
        "words": ["a", "b"],
        "usual": {"kind": "closed"},
    }
}


def test_dataclasses_in_lists_and_mappings_are_read_and_written_back() -> None:
    house = schema.decode(House, WHOLE)

    assert house.room.shelves == (Shelf(height=2), Shelf(height=3, kind="closed"))
    assert house.room.corner == Shelf(height=1)
    assert house.room.usual == {"kind": "closed"}
    assert schema.encode(house) == WHOLE


@pytest.mark.parametrize(
    ("room", "path", "kind"),
    [
        ({"shelves": [{"height": 1}, {"height": "x"}]}, "room.shelves[1].height", ConfigError),
        ({"shelves": [{"hight": 1}]}, "room.shelves[0].hight", UnknownFieldError),
        ({"shelves": [{}]}, "room.shelves[0].height", ConfigError),
        ({"shelves": [1]}, "room.shelves", ConfigError),
        ({"labels": {"wall": {"colour": 1}}}, "room.labels", ConfigError),
        ({"labels": {True: {}}}, "room.labels", ConfigError),
        ({"labels": None}, "room.labels", ConfigError),
        ({"corner": {"height": 1, "kind": "half"}}, "room.corner.kind", ConfigError),
        ({"usual": {"knd": "open"}}, "room.usual.knd", UnknownFieldError),
        ({"usual": {"shelf": {"height": None}}}, "room.usual.shelf.height", ConfigError),
        ({"words": [1]}, "room.words", ConfigError),
        ({"wrods": []}, "room.wrods", UnknownFieldError),
    ],
)
def test_an_error_carries_the_path_of_the_field_that_is_wrong(
    room: dict[str, Any], path: str, kind: type[ConfigError]
) -> None:
    with pytest.raises(ConfigError) as raised:
        schema.decode(House, {"room": room})

    assert raised.value.path == path
    assert type(raised.value) is kind
    assert raised.value.naming_it("--it") == raised.value.message.replace(path, "--it")


def test_a_null_stands_for_the_default_where_a_field_says_so() -> None:
    assert schema.decode(Room, {"shelves": None}) == Room()


def test_what_a_field_says_is_right_is_said_in_place_of_its_type() -> None:
    with pytest.raises(ConfigError, match="shelves is 1: it must be a list of shelves"):
        schema.decode(Room, {"shelves": 1})


def test_a_number_as_a_key_is_its_text() -> None:
    assert schema.decode(Room, {"labels": {4090: {"gpu": "x"}}}).labels == {"4090": {"gpu": "x"}}
