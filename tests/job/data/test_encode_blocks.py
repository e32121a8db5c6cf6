"""Blocks of a file encoded by several processes: the bytes, counts and errors of one."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_alike import made_file, made_spec, outcome

from lorajob_runtime.contract.errors import DataError, LorajobError
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.data import encode_blocks
from lorajob_runtime.data.check import check
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.system.side_by_side import side_by_side


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes for any file, three rows in a block."""
    monkeypatch.setattr(encode_blocks, "_ROWS", 3)
    monkeypatch.setattr("lorajob_runtime.data.encode_dataset.processes_for", lambda *_: 3)


def test_generated_files_come_to_the_same_in_blocks(
    smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"lorajob_runtime.data.{module}.load_tokenizer", lambda *_, **__: smollm2.tokenizer)

    def done(spec: Any) -> list[Any]:
        folder = tmp_path / "data"
        found = [
            outcome(lambda: prepare(spec, model_path=smollm2.path, folder=folder)),
            outcome(lambda: check(spec, model_path=smollm2.path, shown_rows=2)),
        ]
        said = [(each.failure.name, str(each)) if isinstance(each, LorajobError) else each for each in found]
        return [said, {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}]

    def cases() -> Iterator[Any]:
        for seed in range(25):
            chance = random.Random(seed)
            yield made_spec(chance, made_file(chance, tmp_path))

    expected = [done(spec) for spec in cases()]
    request.getfixturevalue("small_blocks")
    found = [done(spec) for spec in cases()]

    for one, other in zip(found, expected, strict=True):
        assert one == other


def test_small_files_are_encoded_by_one_process(smollm2: Any, tmp_path: Path) -> None:
    source = type("Source", (), {"size_bytes": 10**9, "__len__": lambda _: 10**6})()
    encoder = type("Encoder", (), {"tokenizer": smollm2.tokenizer})()

    assert encode_blocks.processes_for(source, 1000, encoder) == 1
    assert 1 <= encode_blocks.processes_for(source, 10**6, encoder) <= 4
    assert 1 <= encode_blocks.rows_of_block(source) <= 2048


def test_shares_yield_in_turn_and_errors_come_when_it_is_their_turn() -> None:
    def work(share: int) -> Iterator[tuple[int, int, bool]]:
        for number in range(3 if share < 2 else 2):
            yield share, number, os.getpid() == here
        if share == 2:
            raise DataError("row 9 is odd", hint="correct it")

    here = os.getpid()
    found: list[Any] = []
    with pytest.raises(DataError, match="row 9 is odd") as caught:
        _until_error(side_by_side(3, work), found)

    assert [pair[:2] for pair in found] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2)]
    assert [pair[2] for pair in found] == [pair[0] == 0 for pair in found]
    assert caught.value.hint == "correct it"


def _until_error(results: Iterator[Any], into: list[Any]) -> None:
    for result in results:
        into.append(result)


def test_a_share_that_the_kernel_ends_is_out_of_memory_and_none_is_left_behind() -> None:
    def work(share: int) -> Iterator[int]:
        yield os.getpid()
        if share == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield 0

    found: list[int] = []
    with pytest.raises(MemoryError):
        _until_error(side_by_side(3, work), found)

    for process in found[1:3]:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_spec_with_many_rows_in_a_file_is_read_by_each_process(
    smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    monkeypatch.setattr("lorajob_runtime.data.prepare.load_tokenizer", lambda *_, **__: smollm2.tokenizer)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"input": "question {n}", "output": "answer {n}"}}\n' for n in range(100)))

    report = prepare(
        parse({"data": {"source": str(path), "rows": "10:", "evalRows": "95:"}}),
        model_path=smollm2.path,
        folder=tmp_path / "data",
    )

    assert (report.rows_used, report.eval_rows, report.sequences) == (85, 5, 85)
