"""The same rows in every kind of file that a dataset may come in, and rows of every form."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]

FORMS: dict[str, list[Row]] = {
    "alpaca": [
        {"instruction": "Translate", "input": '"good", they\nsaid; twice', "output": "bon\tjour"},
        {"instruction": "Who?", "input": "", "output": "甄嬛, 007"},
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
"""Name of a form, as `data.format` has it -> rows with what separators and quotes could tear apart."""


def _table(rows: Sequence[Row], separator: str, *, quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> bytes:
    """As a spreadsheet writes it; turns are text in JSON, the only way that a table can have them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, quoting=quoting)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()})
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


_PLAIN: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
    "csv": lambda rows: _table(rows, ","),
    "tsv": lambda rows: _table(rows, "\t"),
    "parquet": _parquet,
}
_OTHERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "ndjson": lambda rows: "\r\n".join(json.dumps(row) for row in rows).encode("utf-8-sig"),
    "semicolons.csv": lambda rows: _table(rows, ";", quoting=csv.QUOTE_ALL),
}

KINDS = (*_PLAIN, *(f"{kind}.gz" for kind in _PLAIN if kind != "parquet"))
"""Endings of the files."""
ALL_KINDS = (*KINDS, *_OTHERS, "parquet.gz")
"""Those, and other ways to write what is read as one of them."""


def write(kind: str, rows: Sequence[Row], folder: Path) -> Path:
    """A file of one of ALL_KINDS with these rows."""
    content = (_PLAIN | _OTHERS)[kind.removesuffix(".gz")](rows)
    path = folder / f"rows.{kind}"
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path
