"""The adapter says where its answers end, whatever its base stops at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from card_example import example

from lorajob_runtime.models import end_tokens
from lorajob_runtime.models.config_files import GENERATION_CONFIG
from lorajob_runtime.publish import model_card

DOCUMENT, TURN = 0, 2
"""The end of a document, which a base model stops at, and of a turn, which training teaches."""


def folders(tmp_path: Path, generation: Any, config: dict[str, Any]) -> tuple[Path, Path]:
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    for folder in (model, adapter):
        folder.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (model / GENERATION_CONFIG).write_text(generation if isinstance(generation, str) else json.dumps(generation))
    return model, adapter


@pytest.mark.parametrize(
    ("generation", "config", "stops", "expected"),
    [
        ({"eos_token_id": DOCUMENT}, {}, [TURN], [DOCUMENT, TURN]),
        ({"eos_token_id": [DOCUMENT, 7]}, {}, [TURN], [DOCUMENT, 7, TURN]),
        ({"eos_token_id": [TURN, DOCUMENT]}, {}, [TURN], None),
        ({"eos_token_id": TURN}, {}, [TURN], None),
        ({"temperature": 0.7}, {}, [TURN], [TURN]),
        (None, {"eos_token_id": DOCUMENT}, [TURN], [DOCUMENT, TURN]),
        (None, {"eos_token_id": TURN}, [TURN], None),
        (None, {"text_config": {"eos_token_id": DOCUMENT}}, [TURN, 9], [DOCUMENT, TURN, 9]),
        (None, {}, [TURN], [TURN]),
        ("{", {"eos_token_id": DOCUMENT}, [TURN], [DOCUMENT, TURN]),
    ],
)
def test_the_ends_of_training_are_added_to_the_bases_own(
    tmp_path: Path, generation: Any, config: dict[str, Any], stops: list[int], expected: list[int] | None
) -> None:
    """`expected` None: the base stops there by itself."""
    model, adapter = folders(tmp_path, generation, config)

    end_tokens.write(model, adapter, stops)

    assert set(stops) <= set(end_tokens.of_model(adapter))
    assert end_tokens.taught(model, adapter) == tuple(expected or ())
    if isinstance(generation, dict):
        values = json.loads((adapter / GENERATION_CONFIG).read_text())
        assert {**values, "eos_token_id": 0} == {**generation, "eos_token_id": 0}, "all else is the base's"


def test_a_base_that_stops_there_by_itself_keeps_its_file_to_the_letter(tmp_path: Path) -> None:
    model, adapter = folders(tmp_path, '{"eos_token_id":[2,\n0],  "top_p": 0.8}', {})

    end_tokens.write(model, adapter, [TURN])

    assert (adapter / GENERATION_CONFIG).read_bytes() == (model / GENERATION_CONFIG).read_bytes()


def test_the_model_card_gives_ends_only_where_the_base_lacks_one() -> None:
    plain, taught = model_card.render(example()), model_card.render(replace(example(), ends=(DOCUMENT, TURN)))

    assert "eos_token_id" not in plain
    assert "do_sample=False, eos_token_id=[0, 2])" in taught
    assert "`stop_token_ids`" in taught
