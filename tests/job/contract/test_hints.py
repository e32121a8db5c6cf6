"""What a failure tells its user to change can be changed."""

from __future__ import annotations

import re

import pytest

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.spec import every_field


@pytest.mark.parametrize("failure", errors.ALL, ids=lambda failure: failure.name)
def test_every_field_that_a_hint_names_is_one_of_the_spec(failure: errors.FailureClass) -> None:
    named = set(re.findall(r"\b(?:model|data|lora|train|report|resources|storage)\.\w+(?:\.\w+)*", failure.hint))

    assert named <= {field.path for field in every_field()}


def test_an_out_of_memory_names_what_lessens_memory() -> None:
    """How many rows a GPU has of a step lessens none: they are folded into micro-batches that fit."""
    assert "train.batchSize" not in errors.OUT_OF_MEMORY.hint
    assert "data.maxLength" in errors.OUT_OF_MEMORY.hint
