"""Which fields of a run `lorajob retry --set` may change: those whose entry in the spec lets it."""

from __future__ import annotations

import pytest

from lorajob.errors import UsageError
from lorajob.runs.retry import with_settings
from lorajob_runtime.contract import spec as specs

SPEC = specs.parse({"name": "n", "storage": {"uri": "s3://bucket/lora"}})


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("name=other", "name"),
        ("storage.uri=s3://bucket/other", "storage.uri"),
        ("data.source=s3://bucket/rows.json", "data.source"),
        ("train.learningRate=0.1", "train.learningRate"),
        ("model.name=qwen3-8b", "model.name"),
    ],
)
def test_a_field_that_makes_it_another_run_or_moves_it_is_refused_by_its_name(setting: str, field: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_settings(SPEC, ["train.saveSteps=7", setting])

    assert caught.value.message.startswith(f"--set {setting}: {field} ")


def test_others_change_all_together() -> None:
    changed = with_settings(SPEC, ["resources.gpus=2", "train.saveSteps=7", "data.maxDropped=20%", "name=n"])

    assert (changed.resources.gpus, changed.train.save_steps, changed.data.max_dropped) == (2, 7, "20%")
    assert specs.changes(SPEC, changed, place=True) == []
