"""Every form in every kind of file, through the process that a run has its data prepared by, and through a check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dataset_files
from dataset_files import ALL_KINDS, FORMS
from golden.said import Said
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data import process
from lorajob_runtime.data.check import check
from lorajob_runtime.data.prepare import prepare


@pytest.fixture
def loaded(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SmolLM2's tokenizer, loaded once for all files."""
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"lorajob_runtime.data.{module}.load_tokenizer", lambda *_, **__: smollm2.tokenizer)
    return smollm2


def _spec(path: Path) -> RunSpec:
    return parse({"data": {"source": str(path)}, "report": {"samples": {"count": 1}}})


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_come_to_the_same_tokens_from_every_kind_of_file(form: str, loaded: Any, tmp_path: Path) -> None:
    found = {}
    for kind in ALL_KINDS:
        spec = _spec(dataset_files.write(kind, FORMS[form], tmp_path))
        report = prepare(spec, model_path=loaded.path, folder=tmp_path / "data")
        looked_at = check(spec, model_path=loaded.path)
        assert (looked_at.problem, looked_at.rows_used, looked_at.tokens) == (None, 2, report.tokens)
        found[kind] = (report.format, report.fingerprint, report.rows_used)

    assert len(set(found.values())) == 1, found
    assert found["json"][0] == form


@pytest.mark.parametrize("kind", ["csv", "tsv.gz", "parquet", "parquet.gz"])
def test_the_process_of_a_run_reads_every_kind_of_file(kind: str, smollm2: Any, tmp_path: Path) -> None:
    spec = _spec(dataset_files.write(kind, FORMS["alpaca"], tmp_path))
    here = prepare(spec, model_path=smollm2.path, folder=tmp_path / "here")

    report = process.prepare(spec, model_path=smollm2.path, folder=tmp_path / "apart", log=tmp_path / "log")

    assert report == here.to_dict()
    assert "Error" not in (tmp_path / "log").read_text("utf-8")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_are_chosen_from_both_ends_of_every_kind_of_file(
    kind: str, loaded: Any, tmp_path: Path, said: Said
) -> None:
    rows = [{"input": f"Question {number}", "output": f"Answer {number}"} for number in range(600)]
    spec = parse(
        {
            "data": {
                "source": str(dataset_files.write(kind, rows, tmp_path)),
                "rows": "-500:590",
                "evalRows": "-12:-8",
            },
            "report": {"samples": {"count": 9}},
        }
    )

    report = prepare(spec, model_path=loaded.path, folder=tmp_path / "data")

    samples = json.loads((tmp_path / "data" / "samples.json").read_text("utf-8"))["samples"]
    assert [sample["prompt"] for sample in samples] == [f"Question {number}" for number in range(588, 592)]
    assert (report.rows_read, report.rows_selected, report.rows_used, report.eval_rows) == (600, 488, 488, 4)
    said("\n".join(report.notes))
