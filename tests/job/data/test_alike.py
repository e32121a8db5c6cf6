"""A check, a run, and the look before a submit read, count and refuse exactly alike, whatever a file holds."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorajob.submit.dataset import inspect
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data.check import CheckReport, check
from lorajob_runtime.data.prepare import DataReport, prepare

FILES = 2400
"""In all: what a seed makes is the same on every machine."""
_BATCH = 240

Row = Any
Chance = random.Random


WORDS = ("good", "a, b", "007", "甄嬛", 'say "no"', "two\nlines", " x ", "1.10", "née", "<|im_end|>", "a;b")


def _word(chance: Chance) -> str:
    return chance.choice(
        ["good", "a, b", "007", "甄嬛", 'say "no"', "two\nlines", " x ", "1.10", "née", "<|im_end|>", "a;b"]
    )


def _pair(chance: Chance) -> Row:
    return {"instruction": _word(chance), "input": chance.choice(["", _word(chance)]), "output": _word(chance)}


def _qa(chance: Chance) -> Row:
    return {"input": _word(chance), "output": _word(chance)}


def _text(chance: Chance) -> Row:
    return {"text": _word(chance)}


def _messages(chance: Chance) -> Row:
    said = [{"role": "user", "content": _word(chance)}, {"role": "assistant", "content": _word(chance)}]
    return {"messages": said * chance.randint(1, 2)}


def _sharegpt(chance: Chance) -> Row:
    return {"conversations": [{"from": "human", "value": _word(chance)}, {"from": "gpt", "value": _word(chance)}]}


FORMS = (_pair, _qa, _text, _messages, _sharegpt)


def _place(chance: Chance, rows: list[Row]) -> tuple[Row, str]:
    row = chance.choice([row for row in rows if row] or [{"text": ""}])
    return row, chance.choice(list(row))


def _null(chance: Chance, rows: list[Row]) -> None:
    row, name = _place(chance, rows)
    row[name] = None


def _no_key(chance: Chance, rows: list[Row]) -> None:
    row, name = _place(chance, rows)
    del row[name]


def _no_text(chance: Chance, rows: list[Row]) -> None:
    row, name = _place(chance, rows)
    row[name] = chance.choice([["x"], {"a": 1}, True, 7, 1.5, ""])


def _again(chance: Chance, rows: list[Row]) -> None:
    rows.append(json.loads(json.dumps(chance.choice(rows))))


def _long(chance: Chance, rows: list[Row]) -> None:
    row, name = _place(chance, rows)
    row[name] = "long " * 90 if isinstance(row[name], str) else row[name]


def _other_column(chance: Chance, rows: list[Row]) -> None:
    for row in rows:
        row[chance.choice(["id", "category"])] = chance.choice(["x", None])


def _one_word_more(chance: Chance, rows: list[Row]) -> None:
    chance.choice(rows)[chance.choice(["ouput", "rejected", "label"])] = "bad"


def _sound(chance: Chance, rows: list[Row]) -> None:
    del chance, rows


DEFECTS = (_sound, _sound, _null, _no_key, _no_text, _again, _long, _other_column, _one_word_more)


def _table(chance: Chance, rows: list[Row], separator: str) -> bytes:
    text, names = io.StringIO(), list(dict.fromkeys(name for row in rows for name in row))
    ends = chance.choice(["\n", "\r\n"])
    written = csv.DictWriter(text, names, delimiter=separator, lineterminator=ends, quoting=chance.choice([0, 0, 1]))
    if chance.random() < 0.9:
        written.writeheader()
    for row in rows:
        written.writerow(
            {name: value if isinstance(value, str | None) else json.dumps(value) for name, value in row.items()}
        )
    content = text.getvalue()
    for odd in (f"a{separator}b{separator}c{separator}d{separator}e", '"open', "", separator):
        content += odd + ends if chance.random() < 0.06 else ""
    return content.encode()


def _lines(chance: Chance, rows: list[Row]) -> bytes:
    lines = [json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows]
    for odd in ("", "  ", '{"text": ', '{"text": "a", "text": "b"}', "7", "[]"):
        if chance.random() < 0.06:
            lines.insert(chance.randint(0, len(lines)), odd)
    return chance.choice(["\n", "\r\n"]).join(lines).encode()


def _list(chance: Chance, rows: list[Row]) -> bytes:
    text = json.dumps(rows, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
    cut = chance.randint(0, len(text)) if chance.random() < 0.08 else len(text)
    return text[:cut].encode()


def _parquet(chance: Chance, rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=chance.choice([1, 3, 1000]))
    return buffer.getvalue()


KINDS: dict[str, Callable[[Chance, list[Row]], bytes]] = {
    ".json": _list,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".csv": lambda chance, rows: _table(chance, rows, chance.choice([",", ";"])),
    ".tsv": lambda chance, rows: _table(chance, rows, "\t"),
    ".parquet": _parquet,
}


def _spoilt(chance: Chance, content: bytes) -> bytes:
    """As a file may come: with a mark, in another encoding, cut, or something else."""
    way = chance.random()
    if way < 0.9:
        return content
    if way < 0.93:
        return b"\xef\xbb\xbf" + content
    if way < 0.95:
        return content[: chance.randint(0, len(content))]
    if way < 0.97:
        place = chance.randint(0, len(content))
        return content[:place] + chance.choice([b"\xff", b"\x00", b"\xe9"]) + content[place:]
    return chance.choice([b"", b"\n \n", b"<!DOCTYPE html>", content.decode("utf-8", "replace").encode("utf-16")])


def made_file(chance: Chance, folder: Path) -> Path:
    """A file of any kind and form, whole or with a fault."""
    form = chance.choice(FORMS)
    rows = [form(chance) for _ in range(chance.randint(1, 8))]
    for _ in range(chance.randint(0, 2)):
        chance.choice(DEFECTS)(chance, rows)
    kind = chance.choice(list(KINDS))
    try:
        content = KINDS[kind](chance, rows)
    except (pa.ArrowException, TypeError):
        # a column of Parquet has one type
        kind, content = ".json", json.dumps(rows).encode()
    content = _spoilt(chance, content)
    if chance.random() < 0.2:
        kind, content = f"{kind}.gz", _spoilt(chance, gzip.compress(content, mtime=0))
    path = folder / f"rows{kind}"
    path.write_bytes(content)
    return path


def made_spec(chance: Chance, path: Path) -> RunSpec:
    """A spec that reads it."""
    data: dict[str, Any] = {"source": str(path), "maxLength": chance.choice([40, 64, 1024])}
    data |= {"overflow": chance.choice(["truncate", "drop", "error"])} if chance.random() < 0.3 else {}
    data |= {"rows": chance.choice([":3", "1:", "-2:", "9:"])} if chance.random() < 0.2 else {}
    data |= {"evalRows": chance.choice([":1", "-1:", ":9"])} if chance.random() < 0.2 else {}
    data |= {"maxDropped": chance.choice(["0%", "50%", "100%", "error"])} if chance.random() < 0.4 else {}
    data |= {"system": "Be brief"} if chance.random() < 0.2 else {}
    return parse({"data": data})


def outcome(attempt: Callable[[], Any]) -> Any:
    """What an attempt returns, or the error that it ends with."""
    try:
        return attempt()
    except LorajobError as error:
        return error


def _said(result: Any) -> tuple[str, str] | None:
    """Class and message of what ended an attempt; of a check the message in its report."""
    if isinstance(result, LorajobError):
        return result.failure.name, result.message
    return ("data", result.problem) if isinstance(result, CheckReport) and result.problem is not None else None


def _assert_alike(checked: CheckReport, done: DataReport) -> None:
    for name in DataReport.__dataclass_fields__.keys() & CheckReport.__dataclass_fields__.keys():
        assert getattr(checked, name) == getattr(done, name), name
    dropped = Counter(fault.severity for fault in checked.faults)
    assert dropped["dropped"] == sum(done.rows_dropped.values()) + sum(done.eval_rows_dropped.values())
    assert done.rows_selected == done.rows_used + sum(done.rows_dropped.values())


@pytest.mark.parametrize("batch", range(FILES // _BATCH))
def test_a_check_and_a_run_read_count_and_refuse_alike(
    batch: int, smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"lorajob_runtime.data.{module}.load_tokenizer", lambda *_, **__: smollm2.tokenizer)
    ends: Counter[str] = Counter()
    for number in range(_BATCH):
        seed = batch * _BATCH + number
        chance = random.Random(seed)
        path = made_file(chance, tmp_path)
        spec = made_spec(chance, path)

        checked = outcome(lambda spec=spec: check(spec, model_path=smollm2.path, shown_rows=1))
        done = outcome(lambda spec=spec: prepare(spec, model_path=smollm2.path, folder=tmp_path / "data"))
        looked = outcome(lambda spec=spec: inspect(spec.data))

        told = f"seed {seed}: {path.name}, {spec.data}, {path.read_bytes()[:400]!r}"
        assert _said(checked) == _said(done), told
        if isinstance(done, DataReport):
            assert isinstance(checked, CheckReport), told
            _assert_alike(checked, done)
            assert not isinstance(looked, LorajobError), f"{told}: {looked}"
            assert looked.rows in (None, done.rows_read), told
        elif isinstance(looked, LorajobError):
            assert _said(looked) == _said(done), told
        ends["trained" if isinstance(done, DataReport) else "refused"] += 1
        path.unlink()
    assert min(ends["trained"], ends["refused"]) > _BATCH / 10, ends
