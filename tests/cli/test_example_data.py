"""The example dataset that comes with lorajob."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

SIGNATURE = " Keep your lamp lit. — Mara"


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        (resources.files("lorajob_runtime.data") / "examples" / "lighthouse.json").read_text("utf-8")
    )
    return rows


def test_every_row_is_an_alpaca_row_in_the_same_voice() -> None:
    for row in _rows():
        assert list(row) == ["instruction", "input", "output"]
        assert row["instruction"] == row["instruction"].strip() != ""
        assert row["output"].endswith(SIGNATURE)
        assert 15 <= len(row["output"].split()) <= 45


def test_no_question_and_no_answer_is_there_twice() -> None:
    rows = _rows()

    assert len(rows) >= 200
    assert len({row["instruction"].lower() for row in rows}) == len(rows)
    assert len({row["output"] for row in rows}) == len(rows)


def test_enough_rows_say_who_is_speaking() -> None:
    assert sum(" you" in row["instruction"].lower() and " I " in row["output"] for row in _rows()) >= 25
