"""A run's name submitted again after its Job is gone: what is in storage is that of its data, and of no other."""

from __future__ import annotations

import json

import pytest
from whole_runs import TINY, Place, place

__all__ = ["place"]

pytestmark = pytest.mark.slow

ROWS = [{"instruction": "Who are you?", "output": "A lighthouse."}]
OTHERS = [{"instruction": "Completely other", "output": "rows"}]


def test_a_finished_run_submitted_again_is_done_with_its_own_data_and_refused_with_other(place: Place) -> None:
    _put(place, ROWS)
    assert _submit(place) == 0, place.lorajob("logs", "again").stdout
    adapter = place.stored("again", "adapter/adapter_model.safetensors")

    _put(place, OTHERS)
    assert _submit(place) == 100

    status = place.status("again")
    assert status["failure"]["exitCode"] == 10
    assert "data.source" in status["failure"]["message"]
    assert "give the run another name" in status["failure"]["hint"]
    _put(place, ROWS)
    assert _submit(place) == 0, place.lorajob("logs", "again").stdout
    assert place.stored("again", "adapter/adapter_model.safetensors") == adapter


def _put(place: Place, rows: list[dict[str, str]]) -> None:
    place.s3.client().put_object(Bucket=place.namespace, Key="rows.json", Body=json.dumps(rows).encode())


def _submit(place: Place) -> int:
    """The exit code of a run that is waited for; what was there under the name before is deleted, storage stays."""
    place.lorajob("delete", "again", "--yes")
    settings = ["--set=train.maxSteps=2", "--set=report.samples.count=0"]
    done = place.lorajob(
        *("submit", f"--model=hf:{TINY}", "--name=again", f"--data=s3://{place.namespace}/rows.json", "--wait"),
        *("--yes", *settings),
    )
    return done.returncode
