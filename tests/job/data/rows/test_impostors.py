"""Files that are not what their name says: one line that tells what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from made_files import file_of, refused

from lorajob.submit.dataset import inspect
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.read import read

ROWS = b'{"input": "Q", "output": "A"}\n'
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"input": ["Q"], "output": ["A"]}), buffer)
    return buffer.getvalue()


def _arrow() -> bytes:
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(pa.table({"input": ["Q"]}), buffer)
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, ROWS)
    return buffer.getvalue()


def _broken_deep_inside() -> bytes:
    noise = bytes(range(256)) * 40
    packed = bytearray(gzip.compress(b'{"input": "' + noise.hex().encode() + b'", "output": "A"}\n' * 50))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


TEXT_KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")


@pytest.mark.parametrize("ending", [*TEXT_KINDS, ".parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: POINTER, "is a Git LFS pointer and not the file it stands for: fetch that with `git lfs pull`"),
        (lambda: b"<!DOCTYPE html>\n<html><head>", "is an HTML or XML page and not the file"),
        (lambda: b"\n  <html>\n<title>Sign in", "is an HTML or XML page and not the file"),
        (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied', "is an HTML or XML page and not the file"),
        (lambda: gzip.compress(ROWS), "is compressed with gzip: give it a name that ends in .gz"),
        (lambda: bz2.compress(ROWS), "is compressed with bzip2: unpack it first"),
        (lambda: lzma.compress(ROWS), "is compressed with xz: unpack it first"),
        (lambda: b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with zstd: unpack it first"),
        (lambda: _zip("rows.json"), "is a zip archive: unpack it"),
        (lambda: _zip("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook: save the sheet as CSV UTF-8"),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is an old Excel workbook"),
        (_arrow, "is an Arrow file: save it as Parquet"),
        (lambda: b"SQLite format 3\0", "is a SQLite database"),
        (lambda: b"%PDF-1.7\n", "is a PDF"),
        (lambda: b"", "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_is_instead_of_a_dataset_is_said(
    content: Callable[[], bytes], said: str, ending: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, content(), f"rows{ending}")

    assert refused(path).message.startswith(f"{path} {said}")
    with pytest.raises(DataError, match="^" + re.escape(f"{path} {said}")):
        inspect(DataSpec(source=str(path)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "book.xlsx",
            lambda: _zip("[Content_Types].xml", "xl/workbook.xml"),
            "is an Excel workbook: save the sheet as",
        ),
        ("rows.zip", lambda: _zip("rows.json"), "is a zip archive: unpack it"),
        ("rows.gz", lambda: gzip.compress(ROWS), "is compressed with gzip: give it a name that ends in .gz behind its"),
        ("rows.jsonl.zst", lambda: b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with zstd: unpack it first"),
        ("rows.arrow", _arrow, "is an Arrow file: save it as Parquet"),
        ("rows.db", lambda: b"SQLite format 3\0", "is a SQLite database: export the table as CSV"),
    ],
)
def test_under_its_own_name_too(name: str, content: Callable[[], bytes], said: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, content(), name)

    assert refused(path).message.startswith(f"{path} {said}")


@pytest.mark.parametrize("ending", TEXT_KINDS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_parquet, "is Parquet: give it a name that ends in .parquet"),
        (lambda: ROWS.decode().encode("utf-16"), "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"),
        (lambda: ROWS.decode().encode("utf-16-be"), "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"),
        (lambda: ROWS.decode().encode("utf-32"), "line 1 is not UTF-8 but UTF-32: save the file as UTF-8"),
        (lambda: b" \n\n ", "is empty"),
        (lambda: b"\xef\xbb\xbf", "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_that_is_none_or_in_another_encoding_is_said(
    content: Callable[[], bytes], said: str, ending: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, content(), f"rows{ending}")

    assert refused(path).message == f"{path} {said}"


@pytest.mark.parametrize("ending", [*TEXT_KINDS, ".parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: ROWS, "is not compressed with gzip, though its name ends in .gz"),
        (lambda: gzip.compress(ROWS * 50)[:-12], "is not a complete gzip file"),
        (lambda: gzip.compress(ROWS)[:12], "is not a complete gzip file"),
        (_broken_deep_inside, "is not a complete gzip file"),
        (lambda: gzip.compress(POINTER), "is a Git LFS pointer"),
        (lambda: gzip.compress(gzip.compress(ROWS)), "is compressed with gzip twice"),
        (lambda: gzip.compress(b""), "is empty"),
        (lambda: b"", "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_compressed_file_that_is_not_whole_or_holds_no_dataset_is_said(
    content: Callable[[], bytes], said: str, ending: str, tmp_path: Path
) -> None:
    assert said in refused(file_of(tmp_path, content(), f"rows{ending}.gz")).message


def test_a_file_that_unpacks_to_very_much_is_read_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(64):
            file.write(b" " * (1 << 20) + b"\n")
        file.write(ROWS)
    tracemalloc.start()
    assert len(read(path)) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
