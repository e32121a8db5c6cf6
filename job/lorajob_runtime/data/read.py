"""Reads a dataset file into rows, whatever is wrong with it: a fault is one DataError that says where.

CSV and Parquet go through `datasets`. JSON does not: on its way through Arrow a row would gain the keys that other rows
have, and text that looks like a date would become one; and a broken line could not be named.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.data.wording import brief
from lorajob_runtime.exits import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset file as read. `rows` are JSON values as they stand in the file, unchecked."""

    path: Path
    sha256: str
    rows: list[Any]


def read(path: Path) -> Source:
    """All rows of a .json, .jsonl, .csv or .parquet file.

    Raises DataError when it is missing, a folder, of another kind, unreadable, broken or empty.
    """
    reader = _READERS.get(path.suffix.lower())
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder: data.source must be a file, one of {_KINDS}", hint=_PATH_HINT)
        if not path.exists():
            raise DataError(f"there is no dataset at {brief(path, 300)}", hint=_PATH_HINT)
        if reader is None or not path.is_file():
            ending = f"ends in {path.suffix or 'nothing'!r}" if reader is None else "is no plain file"
            raise DataError(f"{path} {ending}: a dataset must be one of {_KINDS}", hint=_PATH_HINT)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {brief(path, 300)}: {error.strerror}") from error
    if not content.strip():
        raise DataError(f"{path} is empty")
    rows = reader(path, content)
    if not rows:
        raise DataError(f"{path} has no rows")
    return Source(path=path, sha256=hashlib.sha256(content).hexdigest(), rows=rows)


def _read_json(path: Path, content: bytes) -> list[Any]:
    """A list of rows, one row, or one row a line: all three are found under either name."""
    text = _decoded(path, content)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # One row a line: newlines only, because text may hold other line separators.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if path.suffix.lower() == ".json" and not _is_json(lines[0][1]):
            raise DataError(f"{path} line {error.lineno} is not JSON: {error.msg}") from error
        return [_parsed_line(path, number, line) for number, line in lines]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON that can be read: {error}") from error
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise DataError(f"{path} holds a single {type(value).__name__}: it must hold rows, each an object")
    # A file that is one conversation, its turns at the top.
    return [value] if value and all(is_turn(item) for item in value) else value


def is_turn(value: object) -> bool:
    """Whether a value is one turn of a conversation, by its keys."""
    return isinstance(value, dict) and (value.keys() >= {"from", "value"} or value.keys() >= {"role", "content"})


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{path} line {number} is not JSON: {reason}") from error


def csv_lines(text: str) -> Iterator[list[str]]:
    """The lines of a CSV text that are not blank, as their values, however long these are. Raises csv.Error."""
    csv.field_size_limit(_CSV_VALUE_MAX_LENGTH)
    return (line for line in csv.reader(io.StringIO(text, newline="")) if line)


def _read_csv(path: Path, content: bytes) -> list[Any]:
    """Every value as the text that it is: `007` stays `007`, and an answer `NA` is no missing value."""
    try:
        lines = csv_lines(_decoded(path, content))
        header, first = next(lines), next(lines, None)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as csv: {error}") from error
    if first is None:
        return []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice: give one of them another name")
    from datasets import Features, Value  # loads slowly, and only these two kinds of files need it

    features = Features({name: Value("string") for name in header})
    return _load(path, "csv", features=features, keep_default_na=False)


def _read_parquet(path: Path, content: bytes) -> list[Any]:
    del content
    return [_without_nulls(row) for row in _load(path, "parquet")]


def _load(path: Path, kind: str, **options: Any) -> list[Any]:
    """Rows through `datasets`, its cache in a folder that goes away. Any fault of the file becomes one line."""
    import tempfile  # with its own imports a tenth of the time that a submit takes

    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="lorajob-data-") as folder:
        # A link with a plain name, since `datasets` takes brackets and stars in a path for a pattern.
        link = Path(folder) / f"data.{kind}"
        link.symlink_to(path.absolute())
        try:
            loaded = datasets.load_dataset(
                kind, data_files=str(link), split="train", cache_dir=folder, keep_in_memory=True, **options
            )
            rows: list[Any] = loaded.to_list()
        except Exception as error:
            reason = brief(error.__cause__ or error, 160).replace(str(link), path.name)
            raise DataError(f"{path} cannot be read as {kind}: {reason}") from error
    return rows


def _without_nulls(value: Any) -> Any:
    """Nested nulls stand for keys that the row does not have: a Parquet column gives every row the keys of all."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _decoded(path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from error
    if not text.strip():
        # a mark of the byte order alone, or spaces that are none in ASCII
        raise DataError(f"{path} is empty")
    return text


_CSV_VALUE_MAX_LENGTH = 2**31 - 1
"""The most that `csv` can be told everywhere; 128 KiB without, and an answer may be longer."""

_PATH_HINT = "correct data.source, the path given with --data"
_READERS: dict[str, Callable[[Path, bytes], list[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
_KINDS = ", ".join(_READERS)
