"""Data and weights are those of the run, wherever a run says that it is done, goes on, or publishes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import identity
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.identity import Identity
from lorajob_runtime.storage import checkpoint

ROWS = [{"instruction": "Who are you?", "output": "A lighthouse."}]
OTHERS = [{"instruction": "Completely other", "output": "rows"}]


class Place:
    """A dataset and a model folder that a run starts from, and the storage it ends in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data, self.model, self.runs = path / "rows.json", path / "model", path / "runs"
        self.data.write_text(json.dumps(ROWS))
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        (self.model / "model.safetensors").write_bytes(b"weights of the first kind")
        (self.model / "tokenizer.json").write_text("{}")
        (self.model / "chat_template.jinja").write_text("{{ messages }}")

    def spec(self, **data: Any) -> dict[str, Any]:
        return {"model": {"name": str(self.model)}, "data": {"source": str(self.data)} | data}

    @property
    def adapter(self) -> Path:
        return self.runs / "n/adapter/adapter_model.safetensors"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def other_rows(place: Place) -> None:
    place.data.write_text(json.dumps(OTHERS))


def other_weights(place: Place) -> None:
    (place.model / "model.safetensors").write_bytes(b"weights of another kind")


def other_template(place: Place) -> None:
    (place.model / "chat_template.jinja").write_text("<s>{{ messages }}")


def other_tokenizer(place: Place) -> None:
    (place.model / "tokenizer.json").write_text('{"added_tokens": []}')


CHANGES = {
    "rows": (other_rows, "data.source"),
    "weights": (other_weights, "weights in"),
    "template": (other_template, ""),
}


def unfinished(place: Place, start: Callable[..., Any]) -> None:
    """Two of four steps done, with a checkpoint."""
    failing = {"failures": [{"rank": 0, "step": 3, "class": "diverged", "message": "NaN"}]}
    assert start(str(place.runs), orders=failing, spec=place.spec()).wait() == 15


def unpublished(place: Place, start: Callable[..., Any]) -> None:
    """All steps done; what storage has of the results was deleted."""
    assert start(str(place.runs), spec=place.spec()).wait() == 0
    shutil.rmtree(place.runs / "n")


def finished(place: Place, start: Callable[..., Any]) -> None:
    assert start(str(place.runs), spec=place.spec()).wait() == 0


def finished_elsewhere(place: Place, start: Callable[..., Any]) -> None:
    """All that this machine has of the run is what storage has."""
    finished(place, start)
    shutil.rmtree(place.runs / ".work")


def finished_without_checkpoints(place: Place, start: Callable[..., Any]) -> None:
    finished(place, start)
    shutil.rmtree(place.runs / "n/checkpoints")
    shutil.rmtree(place.runs / ".work")


STATES = {state.__name__: state for state in (unfinished, unpublished, finished, finished_elsewhere)}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_a_run_is_refused_with_other_data_or_weights_in_whatever_state_it_is(
    start, place: Place, state: str, change: str
) -> None:
    STATES[state](place, start)
    make, words = CHANGES[change]
    make(place)

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 10, again.end()
    assert words in again.end()["message"]
    assert "give the run another name" in again.end()["hint"]
    assert "step-000002" in again.end()["message"] or state != "unfinished"


@pytest.mark.parametrize("change", [other_rows, other_weights])
def test_results_are_not_published_under_other_data(start, place: Place, change: Callable[[Place], None]) -> None:
    unpublished(place, start)
    change(place)

    assert start(str(place.runs), spec=place.spec()).wait() == 10

    assert not place.adapter.exists()


def test_after_a_refusal_the_old_data_still_publishes_and_the_other_is_still_refused(start, place: Place) -> None:
    unpublished(place, start)
    other_rows(place)
    for _ in range(2):
        assert start(str(place.runs), spec=place.spec()).wait() == 10
    place.data.write_text(json.dumps(ROWS))

    assert start(str(place.runs), spec=place.spec()).wait() == 0

    card = json.loads((place.runs / "n/adapter/README.md").read_text())
    assert card["source_sha256"] in identity.of_dataset(place.data)


@pytest.mark.parametrize("state", [unfinished, unpublished, finished, finished_elsewhere, finished_without_checkpoints])
def test_a_dataset_that_only_moved_is_the_same(start, place: Place, state: Callable[..., None]) -> None:
    state(place, start)
    place.data = place.data.rename(place.path / "moved.json")

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 0, again.end()
    assert place.adapter.exists()


@pytest.mark.parametrize("state", [finished, finished_without_checkpoints])
@pytest.mark.parametrize(
    "data", [{"rows": "0:1"}, {"system": "You are a bear."}, {"evalRows": ":1"}, {"columns": {"input": "instruction"}}]
)
def test_a_finished_run_with_another_choice_of_rows_or_system_prompt_is_refused(
    start, place: Place, state: Callable[..., None], data: dict[str, Any]
) -> None:
    state(place, start)

    again = start(str(place.runs), spec=place.spec(**data))

    assert again.wait() == 10
    assert f"data.{next(iter(data))}" in again.end()["message"]


def test_a_finished_run_whose_checkpoints_are_gone_is_still_refused_other_data(start, place: Place) -> None:
    finished_without_checkpoints(place, start)
    other_rows(place)

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 10
    assert "data.source" in again.end()["message"]


def test_another_tokenizer_is_refused_by_a_finished_run(start, place: Place) -> None:
    finished(place, start)
    other_tokenizer(place)

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 10
    assert "the tokenizer or chat template" in again.end()["message"]


@pytest.mark.parametrize("state", [finished, finished_elsewhere])
@pytest.mark.parametrize("gone", ["data", "model", "both"])
def test_a_finished_run_needs_neither_its_dataset_nor_its_weights_any_more(
    start, place: Place, state: Callable[..., None], gone: str
) -> None:
    state(place, start)
    if gone != "model":
        place.data.unlink()
    if gone != "data":
        shutil.rmtree(place.model)

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 0, again.end()
    assert [event["event"] for event in again.events()] == ["end"]
    assert "already done" in again.end()["message"]


def test_weights_of_the_run_count_where_another_source_has_others(start, place: Place) -> None:
    finished(place, start)
    shutil.copytree(place.model, place.path / "model-elsewhere")
    other_weights(place)

    assert start(str(place.runs), spec=place.spec()).wait() == 0


@pytest.mark.parametrize("state", [unfinished, unpublished])
def test_a_run_with_work_left_still_needs_its_dataset(start, place: Place, state: Callable[..., None]) -> None:
    state(place, start)
    place.data.unlink()

    assert start(str(place.runs), spec=place.spec()).wait() == 11


def test_an_unfinished_run_goes_on_when_its_rows_are_only_written_otherwise(start, place: Place) -> None:
    unfinished(place, start)
    place.data.write_text(json.dumps(ROWS, indent=4))

    assert start(str(place.runs), spec=place.spec()).wait() == 0


def test_what_is_not_known_is_not_compared_and_tokens_outrank_where_they_come_from() -> None:
    was = Identity(tokens="a", contents=frozenset(["x"]), tokenizer="t", weights="w")

    identity.refuse_others(was, Identity(), result="it")
    identity.refuse_others(Identity(), was, result="it")
    identity.refuse_others(
        was, Identity(tokens="a", contents=frozenset(["y"]), tokenizer="u", weights="w"), result="it"
    )
    for other in (
        Identity(tokens="b", contents=frozenset(["x"]), tokenizer="t"),
        Identity(contents=frozenset(["y"])),
        Identity(tokenizer="u"),
        Identity(tokens="a", weights="v"),
    ):
        with pytest.raises(ConfigError):
            identity.refuse_others(was, other, result="it")


@pytest.mark.parametrize(
    ("was", "now", "words", "help_"),
    [
        ({}, {}, "the data and the tokenizer are the same, but this version of lorajob makes other tokens", "version"),
        ({}, {"contents": frozenset(["y"])}, "the content of data.source or the model's files have", "old data"),
        ({}, {"tokenizer": "u"}, "the content of data.source or the model's files have", "old data"),
        ({"contents": frozenset()}, {}, "the model's files or the version of lorajob have changed", "old data"),
        ({"tokenizer": None}, {}, "the model's files or the version of lorajob have changed", "old data"),
    ],
)
def test_other_tokens_are_said_to_be_of_what_can_have_changed(
    was: dict[str, Any], now: dict[str, Any], words: str, help_: str
) -> None:
    known: dict[str, Any] = {"contents": frozenset(["x"]), "tokenizer": "t"}

    with pytest.raises(ConfigError) as caught:
        identity.refuse_others(
            Identity(**({"tokens": "a"} | known | was)), Identity(**({"tokens": "b"} | known | now)), result="it"
        )

    assert words in caught.value.message
    assert help_ in caught.value.hint


def test_a_version_that_makes_other_tokens_of_the_same_data_says_so(start, place: Place) -> None:
    unfinished(place, start)
    path = place.runs / ".work/n/checkpoints/step-000002"
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"data_fingerprint": "of an older version"}))
    checkpoint.seal(path, 2)

    again = start(str(place.runs), spec=place.spec())

    assert again.wait() == 10, again.end()
    assert "not those of checkpoint step-000002: the data and the tokenizer are the same" in again.end()["message"]


def test_a_compressed_dataset_is_known_by_its_content_too(tmp_path: Path) -> None:
    import gzip

    plain, packed, broken = (tmp_path / name for name in ("rows.json", "rows.json.gz", "broken.json.gz"))
    plain.write_text(json.dumps(ROWS))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    broken.write_bytes(packed.read_bytes()[:20])

    assert identity.of_dataset(plain) < identity.of_dataset(packed)
    assert len(identity.of_dataset(broken)) == 1
