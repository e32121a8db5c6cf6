"""Rows that the model cannot read though its tokenizer can: said before any weights are loaded."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from golden.said import Said
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data.check import check, check_text
from lorajob_runtime.data.model_limits import foreign_id
from lorajob_runtime.data.prepare import DataReport, prepare
from lorajob_runtime.models import token_limits
from lorajob_runtime.models.token_limits import Bounds
from lorajob_runtime.report import lines

VOCABULARY = 49152
ROWS = [
    {"instruction": "Say hello", "output": "Hello."},
    {"instruction": "Make a face", "output": "<FACE> smile </FACE>"},
]
PLAIN = ROWS[:1]
LONG = {"instruction": "Count up", "output": " ".join(map(str, range(200)))}


class Place:
    """A model folder whose tokenizer may know more tokens than its weights, and a dataset."""

    def __init__(self, path: Path, smollm2: Any) -> None:
        self.path, self.model = path, path / "model"
        shutil.copytree(smollm2.path, self.model)
        self.configure(vocab_size=VOCABULARY)

    def configure(self, **values: Any) -> None:
        (self.model / "config.json").write_text(json.dumps({"model_type": "llama"} | values))

    def add_tokens(self) -> None:
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        tokenizer.add_tokens(["<FACE>", "</FACE>"], special_tokens=True)
        tokenizer.save_pretrained(self.model)

    def spec(self, rows: list[dict[str, str]], **data: Any) -> RunSpec:
        (self.path / "rows.json").write_text(json.dumps(rows))
        return parse({"data": {"source": str(self.path / "rows.json")} | data})

    def prepare(self, rows: list[dict[str, str]], **data: Any) -> DataReport:
        return prepare(self.spec(rows, **data), model_path=self.model, folder=self.path / "out")

    def check(self, rows: list[dict[str, str]], **data: Any) -> Any:
        return check(self.spec(rows, **data), model_path=self.model)


@pytest.fixture
def place(tmp_path: Path, smollm2: Any) -> Place:
    return Place(tmp_path, smollm2)


@pytest.mark.parametrize("data", [{}, {"evalRows": "1:2"}])
def test_a_token_without_a_row_in_the_embedding_is_named_with_its_row_by_run_and_check_alike(
    place: Place, data: dict[str, str]
) -> None:
    place.add_tokens()

    with pytest.raises(DataError) as refused:
        place.prepare(ROWS, **data)

    for part in ("row 2", "'<FACE>'", "id 49152", "49152 rows"):
        assert part in refused.value.message
    assert place.check(ROWS, **data).problem == refused.value.message


def test_tokens_that_were_added_and_are_not_used_do_no_harm(place: Place) -> None:
    place.add_tokens()

    assert place.prepare(PLAIN).rows_used == 1
    assert place.prepare([*PLAIN, LONG | {"output": LONG["output"] + "<FACE>"}], maxLength=64).rows_truncated == 1


@pytest.mark.parametrize("config", [{"vocab_size": VOCABULARY + 64}, {}, {"text_config": {"vocab_size": 60_000}}])
def test_a_padded_vocabulary_and_one_that_nobody_knows_refuse_nothing(place: Place, config: dict[str, Any]) -> None:
    place.add_tokens()
    place.configure(**config)

    assert place.prepare(ROWS).rows_used == 2


def test_the_header_of_the_weights_tells_what_the_configuration_does_not(place: Place) -> None:
    place.add_tokens()
    place.configure()
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "BF16", "shape": [VOCABULARY, 8]}}).encode()
    (place.model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

    with pytest.raises(DataError, match="49152 rows"):
        place.prepare(ROWS)


def test_an_end_token_without_a_row_is_none_to_stop_at(place: Place) -> None:
    """What ends an answer here has id 2."""
    place.configure(vocab_size=VOCABULARY)
    place.prepare(PLAIN)
    known = json.loads((place.path / "out/samples.json").read_text())["stop_ids"]

    assert foreign_id(known, Bounds(vocabulary=VOCABULARY)) is None
    assert 2 in known
    place.configure(vocab_size=2)
    with pytest.raises(DataError, match="2 rows"):
        place.prepare(PLAIN)


@pytest.mark.parametrize(
    ("ids", "vocabulary", "expected"),
    [
        ([0, 5, 9], 10, None),
        ([0, 10, 11], 10, 10),
        ([0, -1], 10, -1),
        ([], 10, None),
        ([10**6], None, None),
    ],
)
def test_ids_are_from_0_to_one_less_than_the_embedding_has_rows(
    ids: list[int], vocabulary: int | None, expected: int | None
) -> None:
    assert foreign_id(ids, Bounds(vocabulary=vocabulary)) == expected


def test_rows_longer_than_the_window_are_counted_and_said_by_run_and_check(place: Place, said: Said) -> None:
    place.configure(vocab_size=VOCABULARY, max_position_embeddings=64)

    report = place.prepare([*PLAIN, LONG, LONG], maxLength=4096)
    checked = place.check([*PLAIN, LONG, LONG], maxLength=4096)

    said("\n".join(report.warnings))
    assert checked.warnings == report.warnings
    assert f"warning   {report.warnings[0]}" in check_text(checked, colour=False)
    shown = lines.lines({"event": "report", "name": "data"} | report.to_dict())
    assert [line.text for line in shown if line.tone == "warning"] == [f"warning: {text}" for text in report.warnings]


@pytest.mark.parametrize(("length", "said"), [(64, 0), (65, 1)])
def test_a_limit_within_the_window_says_nothing(place: Place, length: int, said: int) -> None:
    place.configure(vocab_size=VOCABULARY, max_position_embeddings=64)

    assert len(place.prepare(PLAIN, maxLength=length).warnings) == said


def test_positions_from_a_table_end_a_run_whose_rows_go_beyond_it(place: Place) -> None:
    place.configure(vocab_size=VOCABULARY, model_type="gpt2", n_positions=64)

    with pytest.raises(DataError, match=r"row 2.* positions for only 64; set data.maxLength to 64"):
        place.prepare([*PLAIN, LONG], maxLength=4096)
    assert place.prepare([*PLAIN, LONG], maxLength=64).rows_used == 2


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({}, None),
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 64}, "max_position_embeddings": None}, 64),
        ({"max_position_embeddings": 64, "sliding_window": 16}, 64),
        ({"max_position_embeddings": 32, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 64),
        ({"max_position_embeddings": 32, "rope_scaling": {"rope_type": "dynamic", "factor": 4}}, 128),
        (
            {
                "max_position_embeddings": 32,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            },
            128,
        ),
        (
            {
                "max_position_embeddings": 128,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            },
            128,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 64),
        (
            {
                "max_position_embeddings": 32,
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}, "sliding_attention": {}},
            },
            64,
        ),
        ({"max_position_embeddings": 2048, "alibi": True}, None),
        ({"max_position_embeddings": "many", "rope_scaling": "none"}, None),
        ({"max_position_embeddings": 64, "rope_scaling": None}, 64),
    ],
)
def test_the_window_is_what_positions_reach_with_their_stretching(config: dict[str, Any], window: int | None) -> None:
    assert token_limits.of_config(config).window == window


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_configuration_that_cannot_be_read_bounds_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs")

    assert token_limits.of_folder(tmp_path) == token_limits.UNKNOWN
    assert token_limits.of_folder(tmp_path / "none") == token_limits.UNKNOWN
