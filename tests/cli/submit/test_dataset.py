"""How a local dataset is looked at before a submit, and how it travels."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dataset_files
from lorajob.submit import dataset
from lorajob.submit.dataset import inspect, is_local, plain_name
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.spec import DataSpec
from lorajob_runtime.data.rows.read import read

ROWS = [{"instruction": "Who are you?", "input": "", "output": f"I am number {number}."} for number in range(20)]


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _data(path: Path, **changes: Any) -> DataSpec:
    return DataSpec(source=str(path), **changes)


def test_a_good_file_tells_its_rows_and_form(tmp_path: Path) -> None:
    found = inspect(_data(_file(tmp_path, "rows.json", json.dumps(ROWS))))

    assert found.rows == 20
    assert found.verdict is not None
    assert "alpaca" in found.verdict
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.json", "", "is empty"),
        ("blank.csv", " \n", "is empty"),
        ("mark.csv", b"\xef\xbb\xbf\n", "is empty"),
        ("mark.json", b"\xef\xbb\xbf\n", "is empty"),
        ("rows.json", '[{"instruction": "a",\n "output" "b"}]', "line 2 is not JSON"),
        ("rows.jsonl", '{"input": "a", "output": "b"}\n{"input": }\n', "line 2 is not JSON"),
        ("rows.json", "[]", "has no rows"),
        ("rows.json", '[{"colour": "red"}]', "no row has a known form: the first row has the keys 'colour'"),
        ("rows.json", b"\xff\xfe", "is not UTF-8"),
        ("rows.csv", b"input,output\n\xff,b\n", "line 2 is not UTF-8"),
        ("rows.csv", "input,output\n", "has no rows"),
        ("rows.csv", "input,input\na,b\n", "has the column 'input' twice"),
        ("rows.parquet", b"PAR1 and no more", "is not Parquet, or not complete"),
        ("rows.parquet", b"", "is empty"),
        ("rows.txt", "text", "ends in '.txt': a dataset must be one of .json, .jsonl, .csv, .parquet"),
    ],
)
def test_a_file_that_no_run_could_use_is_refused_here(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        inspect(_data(_file(tmp_path, name, content)))

    assert said in refused.value.message
    assert name in refused.value.message or "known form" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "rows.json",
            '[[{"from": "human", "value": "Q"}, {"from": "robot", "value": "A"}]]',
            "row 1 (counted from 1) turn 2 is from 'robot': it must be one of system, developer, human",
        ),
        (
            "rows.jsonl",
            '{"input": "a", "output": "b"}\n{"input": ["a"], "output": "b"}\n{"question": "a"}\n',
            "2 of 3 rows in data.rows cannot be used (66.7%, data.maxDropped is 5%): row 2: input is a list",
        ),
        (
            "rows.json",
            '[{"input": "a", "output": ""}, {"input": "", "output": "b"}]',
            "nothing to train on in data.rows: 1 row (empty output), 1 row (empty input)",
        ),
        ("rows.csv", "input,output\na,\nb,\n", "nothing to train on in data.rows: 2 rows (empty output)"),
    ],
)
def test_rows_that_no_model_could_be_trained_on_are_refused_here(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        inspect(_data(_file(tmp_path, name, content)))

    assert said in refused.value.message


def test_only_the_rows_that_are_meant_are_looked_at(tmp_path: Path) -> None:
    rows = [{"instruction": 1, "output": ["x"]}, *ROWS]

    found = inspect(_data(_file(tmp_path, "rows.json", json.dumps(rows)), rows="1:", eval_rows="1:3"))

    assert found.rows == 21


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none.json", "no dataset at"),
        (tmp_path / "none.parquet", "no dataset at"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(DataError, match=said):
            inspect(_data(path))


def test_rows_and_columns_that_the_file_does_not_have_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, "rows.json", json.dumps(ROWS))

    with pytest.raises(DataError, match="selects no row: the file has 20"):
        inspect(_data(path, rows="30:40"))
    with pytest.raises(DataError, match="a column that no row has"):
        inspect(_data(path, columns={"output": "answer"}))


def test_csv_is_looked_at_as_text_with_all_its_rows_counted(tmp_path: Path) -> None:
    rows = "".join(f'"question {number}","answer, {number}"\n' for number in range(300))

    found = inspect(_data(_file(tmp_path, "rows.csv", "input,output\n" + rows)))

    assert found.rows == 300
    assert found.verdict is not None
    assert "qa" in found.verdict


def test_a_csv_value_may_be_as_long_as_any_other(tmp_path: Path) -> None:
    assert inspect(_data(_file(tmp_path, "rows.csv", f"input,output\na,{'b' * 200_000}\n"))).rows == 1


def test_a_file_too_large_to_read_through_is_only_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "LOOK_BYTES", 100)

    found = inspect(_data(_file(tmp_path, "rows.json", json.dumps(ROWS))))

    assert found.rows is None
    assert found.as_config_map() is None
    assert found.address("s3://bucket/lora/") == f"s3://bucket/lora/.data/{found.sha256}/rows.json"


def test_a_small_file_is_packed_the_same_way_each_time_and_opens_to_what_it_was(tmp_path: Path) -> None:
    content = json.dumps(ROWS)
    found = inspect(_data(_file(tmp_path, "my rows.json", content)))

    first, second = found.as_config_map(), found.as_config_map()

    assert first is not None
    assert first == second
    assert first.name == "my-rows.json.gz"
    assert gzip.decompress(first.content).decode() == content


def test_what_does_not_shrink_is_sent_as_it_is(tmp_path: Path) -> None:
    found = inspect(_data(_file(tmp_path, "rows.json", '[{"text":"a"}]')))

    packed = found.as_config_map()

    assert packed is not None
    assert (packed.name, packed.content) == ("rows.json", b'[{"text":"a"}]')


def test_no_more_of_a_large_file_is_compressed_than_shows_that_it_does_not_fit() -> None:
    asked = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield random.Random(number).randbytes(10_000)

    assert dataset.compressed(pieces(), 100_000) is None
    assert len(asked) < 20


@pytest.mark.parametrize("size", [0, 1, 99_000, 3_000_000])
def test_what_fits_opens_to_what_it_was_and_is_the_same_each_time(size: int) -> None:
    content = (b"one line\n" * (size // 9 + 1))[:size]
    pieces = [content[start : start + 7000] for start in range(0, size, 7000)]

    first, second = dataset.compressed(pieces, 100_000), dataset.compressed([content], 100_000)

    assert first == second
    assert first is not None
    assert gzip.decompress(first) == content


def test_what_does_not_fit_a_config_map_even_compressed_goes_through_storage(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1_200_000).hex()
    rows = [{"input": noise[start : start + 1000], "output": "b"} for start in range(0, len(noise), 1000)]

    found = inspect(_data(_file(tmp_path, "rows.json", json.dumps(rows))))

    assert found.rows == 2400
    assert found.as_config_map() is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rows.json", "rows.json"),
        ("甄嬛.json", "data.json"),
        ("甄嬛 v2 (final).JSONL", "v2-final.jsonl"),
        ("..json.csv", "json.csv"),
        ("a" * 300 + ".parquet", "a" * 100 + ".parquet"),
    ],
)
def test_a_files_name_becomes_a_plain_key_and_keeps_its_ending(name: str, key: str) -> None:
    assert plain_name(Path(name)) == key


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, False),
        ("s3://bucket/rows.json", False),
        ("rows.json", True),
        ("/data/rows.json", True),
        ("/cache/datasets/rows.json", False),
    ],
)
def test_only_files_of_this_machine_are_looked_at(source: str | None, expected: bool) -> None:
    assert is_local(DataSpec(source=source)) is expected


@pytest.mark.parametrize("name", ["my rows.jsonl.gz", "csv.CSV.GZ", "rows.tsv", "rows.ndjson", "rows.parquet"])
def test_every_kind_of_file_travels_under_a_name_that_a_run_reads_as_the_same_rows(name: str, tmp_path: Path) -> None:
    kind = name.lower().partition(".")[2].replace("ndjson", "jsonl")
    path = dataset_files.write(kind, dataset_files.FORMS["qa"], tmp_path).rename(tmp_path / name)
    found = inspect(_data(path))

    packed = found.as_config_map()

    assert packed is not None
    (tmp_path / "pod").mkdir()
    arrived = _file(tmp_path / "pod", packed.name, packed.content)
    assert list(read(arrived)) == list(read(path)) == dataset_files.FORMS["qa"]
    assert read(arrived).sha256 == read(path).sha256
    assert found.rows == (None if "parquet" in name else 2)
    assert found.text_bytes == (None if "parquet" in name else read(path).size_bytes)


def test_a_compressed_file_that_is_long_when_unpacked_is_only_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, "rows.json.gz", gzip.compress(json.dumps(ROWS).encode()))
    monkeypatch.setattr(dataset, "LOOK_BYTES", 2 * path.stat().st_size)

    assert inspect(_data(path)).rows is None
