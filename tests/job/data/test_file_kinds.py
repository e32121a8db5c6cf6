"""Every form in every kind of file, through the process that a run has its data prepared by, and through a check."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorajob_runtime.data import process
from lorajob_runtime.data.check import check
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.spec import RunSpec, parse

Row = dict[str, Any]

FORMS: dict[str, list[Row]] = {
    "alpaca": [
        {"instruction": "Translate", "input": ' "good", they\nsaid; twice', "output": "bon\tjour"},
        {"instruction": "Who?", "input": "", "output": "甄\u2028嬛, 007"},
    ],
    "qa": [{"input": "Why, then?", "output": "Because."}, {"input": "1.10", "output": "NA"}],
    "text": [{"text": "Once upon a time, there was."}, {"text": 'He said "no".'}],
    "messages": [
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A, B"}]},
        {"messages": [{"role": "user", "content": "Q\n2"}, {"role": "assistant", "content": '"A"'}]},
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "S"},
        {"conversations": [{"from": "human", "value": "Q;2"}, {"from": "gpt", "value": "A\t2"}], "system": ""},
    ],
}


@pytest.fixture
def loaded(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SmolLM2's tokenizer, loaded once for all files."""
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"lorajob_runtime.data.{module}.load_tokenizer", lambda *_, **__: smollm2.tokenizer)
    return smollm2


def _table(rows: list[Row], separator: str, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    """As a spreadsheet writes it; turns are text in JSON, the only way that a table can have them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, quoting=quoting)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()})
    return text.getvalue().encode()


def _parquet(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


KINDS: dict[str, Callable[[list[Row]], bytes]] = {
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
    ".ndjson": lambda rows: "\r\n".join(json.dumps(row) for row in rows).encode("utf-8-sig"),
    ".csv": lambda rows: _table(rows, ","),
    "-semicolons.csv": lambda rows: _table(rows, ";", csv.QUOTE_ALL),
    ".tsv": lambda rows: _table(rows, "\t"),
    ".parquet": _parquet,
}
KINDS |= {f"{ending}.gz": (lambda rows, write=write: gzip.compress(write(rows))) for ending, write in KINDS.items()}


def _spec(path: Path) -> RunSpec:
    return parse({"data": {"source": str(path)}, "report": {"samples": {"count": 1}}})


def _in(kind: str, rows: list[Row], folder: Path) -> Path:
    path = folder / f"rows{kind}"
    path.write_bytes(KINDS[kind](rows))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_come_to_the_same_tokens_from_every_kind_of_file(form: str, loaded: Any, tmp_path: Path) -> None:
    found = {}
    for kind in KINDS:
        spec = _spec(_in(kind, FORMS[form], tmp_path))
        report = prepare(spec, model_path=loaded.path, folder=tmp_path / "data")
        looked_at = check(spec, model_path=loaded.path)
        assert (looked_at.problem, looked_at.rows_used, looked_at.tokens) == (None, 2, report.tokens)
        found[kind] = (report.format, report.fingerprint, report.rows_used)

    assert len(set(found.values())) == 1, found
    assert found[".json"][0] == form


@pytest.mark.parametrize("kind", [".csv", ".tsv.gz", ".parquet", ".parquet.gz"])
def test_the_process_of_a_run_reads_every_kind_of_file(kind: str, smollm2: Any, tmp_path: Path) -> None:
    spec = _spec(_in(kind, FORMS["alpaca"], tmp_path))
    here = prepare(spec, model_path=smollm2.path, folder=tmp_path / "here")

    report = process.prepare(spec, model_path=smollm2.path, folder=tmp_path / "apart", log=tmp_path / "log")

    assert report == here.to_dict()
    assert "Error" not in (tmp_path / "log").read_text("utf-8")


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_rows_are_chosen_from_both_ends_of_every_kind_of_file(kind: str, loaded: Any, tmp_path: Path) -> None:
    rows = [{"input": f"Question {number}", "output": f"Answer {number}"} for number in range(600)]
    spec = parse(
        {
            "data": {"source": str(_in(kind, rows, tmp_path)), "rows": "-500:590", "evalRows": "-12:-8"},
            "report": {"samples": {"count": 9}},
        }
    )

    report = prepare(spec, model_path=loaded.path, folder=tmp_path / "data")

    samples = json.loads((tmp_path / "data" / "samples.json").read_text("utf-8"))["samples"]
    assert [sample["prompt"] for sample in samples] == [f"Question {number}" for number in range(588, 592)]
    assert (report.rows_read, report.rows_selected, report.rows_used, report.eval_rows) == (600, 488, 488, 4)
    assert "2 rows: in data.rows and data.evalRows, so held out and not trained on" in report.notes
