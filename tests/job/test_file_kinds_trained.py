"""Every kind of file, with every form, through `lorajob run` to an adapter: the processes that a person starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dataset_files
from dataset_files import FORMS, KINDS
from lorajob_runtime.contract import events, spec
from lorajob_runtime.data.prepare import prepare
from small_models import smollm2, tiny_llama

SETTINGS = ["train.maxSteps=1", "train.batchSize=2", "train.gradientAccumulation=1", "report.samples.count=0"]
SETTINGS += ["report.swanlab.mode=disabled"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2()[0].path)


@pytest.mark.parametrize(("kind", "form"), [(kind, list(FORMS)[at % len(FORMS)]) for at, kind in enumerate(KINDS)])
def test_rows_of_a_file_of_every_kind_are_trained_on_as_those_of_json_are(
    kind: str, form: str, model: Path, tmp_path: Path
) -> None:
    as_json = dataset_files.write("json", FORMS[form], tmp_path)
    expected = prepare(spec.parse({"data": {"source": str(as_json)}}), model_path=model, folder=tmp_path / "expected")
    data = dataset_files.write(kind, FORMS[form], tmp_path)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]

    done = subprocess.run(
        [sys.executable, "-m", "lorajob", "run", "--model", str(model), "--data", str(data), "--name", "a", *settings],
        cwd=tmp_path,
        env=os.environ | {"LORAJOB_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = list(events.read(tmp_path / "runs/a/events.jsonl"))
    (report,) = (event for event in told if event["event"] == "report" and event["name"] == "data")
    assert (report["format"], report["rows_used"], report["fingerprint"]) == (form, 2, expected.fingerprint)
    assert [event["tokens"] for event in told if event["event"] == "step"] == [expected.tokens]
    assert (tmp_path / "runs/a/adapter/adapter_model.safetensors").stat().st_size > 0
