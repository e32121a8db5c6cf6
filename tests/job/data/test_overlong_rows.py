"""Rows that are longer than data.maxLength: cut, dropped or refused, and always counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.loss_mask import cut
from lorajob_runtime.data.tokens import TokenRows, TokenWriter

SHORT = {"instruction": "Q", "output": "A"}
LONG = {"instruction": "Q", "output": "word " * 50}
ENDLESS_QUESTION = {"instruction": "word " * 200, "output": "A"}


def test_a_cut_answer_has_no_end_token_and_is_counted(smollm2: Any, prepared: Any) -> None:
    result = prepared(smollm2, [SHORT, LONG], maxLength=60)
    ids, targets = result.train.row(1)
    assert len(ids) == 60
    assert targets[-1]
    assert ids[-1] != smollm2.tokenizer.eos_token_id
    assert (result.report.rows_used, result.report.rows_truncated) == (2, 1)


def test_a_row_with_nothing_of_its_answer_left_is_dropped_with_the_reason(smollm2: Any, prepared: Any) -> None:
    result = prepared(smollm2, [SHORT, ENDLESS_QUESTION], maxLength=60)
    assert result.report.rows_dropped == {"no answer left within data.maxLength": 1}
    assert (result.report.rows_used, result.report.rows_truncated) == (1, 0)


def test_overlong_rows_can_be_dropped(smollm2: Any, prepared: Any) -> None:
    result = prepared(smollm2, [SHORT, LONG], maxLength=60, overflow="drop")
    assert result.report.rows_dropped == {"more tokens than data.maxLength": 1}
    assert len(result.train) == 1


def test_overlong_rows_can_be_refused(smollm2: Any, prepared: Any) -> None:
    with pytest.raises(DataError, match=r"row 2 \(counted from 1\) has 8\d tokens, more than data.maxLength 60"):
        prepared(smollm2, [SHORT, LONG], maxLength=60, overflow="error")


@pytest.mark.parametrize("overflow", ["truncate", "drop"])
def test_a_limit_too_small_for_any_answer_says_what_is_needed(overflow: str, smollm2: Any, prepared: Any) -> None:
    whole = len(prepared(smollm2, [SHORT]).train.row(0)[0])
    needed = whole if overflow == "drop" else whole - 1
    with pytest.raises(DataError, match=f"at least {needed} tokens are needed") as caught:
        prepared(smollm2, [SHORT, LONG], maxLength=8, overflow=overflow)
    assert "data.maxLength 8 is too small" in caught.value.message
    assert prepared(smollm2, [SHORT, LONG], maxLength=needed, overflow=overflow).train.target_tokens > 0


def test_a_long_conversation_keeps_the_answers_that_fit(smollm2: Any, prepared: Any) -> None:
    turns = [{"role": role, "content": "word " * 9} for _ in range(9) for role in ("user", "assistant")]
    result = prepared(smollm2, [{"messages": turns}], maxLength=100)
    ids, targets = result.train.row(0)
    assert 60 < len(ids) <= 100
    assert targets[-1]
    assert result.report.rows_truncated == 1


def test_rows_without_any_target_are_an_error_that_counts_the_reasons(smollm2: Any, prepared: Any) -> None:
    rows = [{"instruction": "Q", "output": ""}, {"instruction": "", "output": "A"}, {"instruction": "Q", "output": " "}]
    with pytest.raises(DataError, match=r"2 rows \(empty output\), 1 row \(empty instruction\)"):
        prepared(smollm2, rows)


@given(targets=st.lists(st.booleans(), min_size=1, max_size=30), limit=st.integers(1, 40))
def test_a_cut_sequence_is_a_prefix_that_ends_in_a_target(targets: list[bool], limit: int) -> None:
    ids, mask = np.arange(len(targets), dtype=np.int32), np.array(targets)
    kept_ids, kept = cut(ids, mask, limit)
    assert len(kept) <= limit
    assert kept_ids.tolist() == ids[: len(kept)].tolist()
    assert kept.sum() == mask[:limit].sum()
    assert not len(kept) or kept[-1]


@given(lengths=st.lists(st.integers(1, 6), max_size=8))
def test_token_rows_come_back_from_disk_as_they_went(
    lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = TokenRows.of((np.arange(n, dtype=np.int32), np.ones(n, dtype=np.bool_)) for n in lengths)
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    rows.save(path)
    loaded = TokenRows.load(path)
    assert len(loaded) == len(lengths)
    assert loaded.lengths.tolist() == lengths
    assert loaded.target_tokens == sum(lengths) - len(lengths)
    assert [loaded.row(i)[0].tolist() for i in range(len(loaded))] == [list(range(n)) for n in lengths]
    assert (loaded.input_ids.dtype, loaded.targets.dtype, loaded.offsets.dtype) == (np.int32, np.bool_, np.int64)


@given(lengths=st.lists(st.integers(0, 6), max_size=8))
def test_rows_written_one_by_one_are_the_same_bytes_as_rows_written_at_once(
    lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    pairs = [(np.arange(n, dtype=np.int32), np.ones(n, dtype=np.bool_)) for n in lengths]
    TokenRows.of(pairs).save(folder / "at-once.safetensors")
    with TokenWriter(folder / "one-by-one.safetensors") as writer:
        for ids, targets in pairs:
            writer.add(ids, targets)
        writer.finish()

    assert (folder / "one-by-one.safetensors").read_bytes() == (folder / "at-once.safetensors").read_bytes()
    assert len(list(folder.iterdir())) == 2
