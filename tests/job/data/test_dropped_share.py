"""Rows at fault are left out up to data.maxDropped, the same for check, run and the look before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golden.said import Said
from lorajob_runtime.contract.errors import ConfigError, DataError
from lorajob_runtime.contract.spec import DataSpec, changes, parse
from lorajob_runtime.data.check import check
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.data.rows.detect import detect
from lorajob_runtime.data.rows.issues import TOO_LONG, IssueLog, RowIssue, refuse_dropped, refuse_unusable
from lorajob_runtime.data.rows.load import load
from lorajob_runtime.report.lines import lines

GOOD = {"instruction": "Q", "output": "A"}
EMPTY = {"instruction": "Q", "output": ""}
NO_OUTPUT = {"instruction": "Q", "ouput": "A"}
NO_TEXT = {"instruction": "Q", "output": ["A"]}


@pytest.fixture
def ends(smollm2: Any, tmp_path: Path) -> Any:
    """What check, a run and the look before a run say to the same rows; None where they train."""

    def said(rows: list[Any], /, **data: Any) -> str | None:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        spec = parse({"data": {"source": str(path)} | data})
        found: list[str | None] = [check(spec, model_path=smollm2.path).problem]
        for trial in (
            lambda: prepare(spec, model_path=smollm2.path, folder=tmp_path / "data"),
            lambda: refuse_unusable(load(spec.data), spec.data.max_dropped),
        ):
            try:
                trial()
                found.append(None)
            except DataError as error:
                found.append(error.message)
        assert found[0] == found[1] == found[2]
        return found[0]

    return said


def _after_the_file(message: str) -> str:
    """What is said behind the path of the dataset, which is another one each time."""
    return message.partition("rows.json: ")[2]


def test_one_bad_row_of_twenty_is_dropped_and_one_of_nineteen_ends_the_run(ends: Any, said: Said) -> None:
    assert ends([*[GOOD] * 19, NO_OUTPUT]) is None
    said(_after_the_file(ends([*[GOOD] * 18, NO_OUTPUT])))


def test_above_the_limit_the_commonest_reasons_are_said_with_a_row_each(ends: Any, said: Said) -> None:
    other = {"instruction": "Q", "output": {"a": 1}}
    history = {"instruction": "Q", "output": "A", "history": "x"}
    one_more = {"instruction": ["Q"], "output": "A"}
    rows = [*[GOOD] * 6, NO_TEXT, NO_OUTPUT, NO_TEXT, other, history, one_more, NO_TEXT, EMPTY]
    said(_after_the_file(ends(rows)))


def test_the_limit_can_be_raised_and_lowered(ends: Any) -> None:
    rows = [*[GOOD] * 10, *[NO_TEXT] * 3]
    assert ends(rows, maxDropped="25%") is None
    assert ends(rows, maxDropped="100%") is None
    assert "3 of 13 rows" in ends(rows, maxDropped="20%")
    assert "row 21 (counted from 1)" in ends([*[GOOD] * 20, NO_TEXT], maxDropped="0%")
    assert "data.rows: 1 row (output is a list: it must be text)" in ends([NO_TEXT, GOOD], rows=":1", maxDropped="100%")


def test_rows_with_nothing_to_learn_do_not_count(ends: Any) -> None:
    assert ends([GOOD, *[EMPTY] * 30]) is None
    assert ends([GOOD, EMPTY], maxDropped="0%") is None


def test_error_insists_that_no_row_is_left_out(ends: Any, said: Said) -> None:
    assert ends([GOOD] * 3, maxDropped="error") is None
    said(_after_the_file(ends([GOOD, EMPTY], maxDropped="error")))
    assert "row 101 (counted from 1) output is a list" in ends([*[GOOD] * 100, NO_TEXT], maxDropped="error")


@pytest.mark.parametrize("limit", ["0%", "error"])
@pytest.mark.parametrize("overflow", ["drop", "truncate"])
def test_rows_that_are_too_long_never_count(limit: str, overflow: str, smollm2: Any, prepared: Any) -> None:
    long = {"instruction": "word " * 200, "output": "A"}
    report = prepared(smollm2, [GOOD, long], maxLength=60, maxDropped=limit, overflow=overflow).report
    assert report.rows_used == 1


def test_held_out_rows_have_a_share_of_their_own(ends: Any) -> None:
    rows = [*[NO_TEXT] * 2, *[GOOD] * 98]
    assert ends(rows) is None
    assert "2 of 10 rows in data.evalRows cannot be used (20.0%" in ends(rows, evalRows=":10")


def test_what_was_dropped_is_in_the_report_with_its_reason(smollm2: Any, prepared: Any, said: Said) -> None:
    report = prepared(smollm2, [*[GOOD] * 40, NO_TEXT, EMPTY, EMPTY]).report
    assert report.rows_dropped == {"empty output": 2, "output is a list: it must be text": 1}
    assert report.first_dropped == {"empty output": 42, "output is a list: it must be text": 41}
    shown = lines({"event": "report", "name": "data"} | report.to_dict())
    said("\n".join(line.text for line in shown if line.tone == "warning"))
    assert report.rows_used == 40


def test_a_row_that_the_template_refuses_is_dropped_up_to_the_limit(minimax: Any, prepared: Any) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "observation", "value": "R"}, {"from": "gpt", "value": "A"}]
    good = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    rows = [{"conversations": good}] * 19 + [{"conversations": turns}]
    assert sum(prepared(minimax, rows).report.rows_dropped.values()) == 1


@pytest.mark.parametrize("limit", ["5", "0.05", "101%", "-1%", "5 %", "", "none", "5%5", 0, 0.05, 5, None, True])
def test_a_limit_that_is_no_share_is_refused(limit: object) -> None:
    with pytest.raises(ConfigError, match=r"data.maxDropped is .*: it must be a share from 0% to 100%, or error"):
        parse({"data": {"maxDropped": limit}})


@pytest.mark.parametrize("field", ["rows", "evalRows"])
@pytest.mark.parametrize("value", [5, 0.5, {-5: None}])
def test_what_yaml_makes_of_a_row_range_without_quotes_is_said(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"data.{field} is .*: it must be a row range like .* -100:, in quotes"):
        parse({"data": {field: value}})


@pytest.mark.parametrize(("limit", "allowed"), [("0%", 0), ("0.5%", 5), ("7%", 70), ("29%", 290), ("100%", 1000)])
def test_a_share_is_exact(limit: str, allowed: int) -> None:
    faults = [RowIssue(number=n, reason="is text", severity="dropped", at_fault=True) for n in range(1, allowed + 2)]
    refuse_dropped(_log(faults[:allowed]), 1000, "data.rows", limit, "rows.json")
    with pytest.raises(DataError):
        refuse_dropped(_log(faults), 1000, "data.rows", limit, "rows.json")


def test_a_run_may_go_on_with_another_limit() -> None:
    was, now = parse({}), parse({"data": {"maxDropped": "50%"}})
    assert changes(was, now) == []


def test_reasons_that_differ_in_the_turn_are_one_and_those_that_are_data_stay_few() -> None:
    at = [RowIssue(number=n, reason=f"turn {n} is a list", severity="dropped", at_fault=True) for n in range(1, 4)]
    odd = [RowIssue(number=n, reason=f"is from 'x{n}'", severity="dropped", at_fault=True) for n in range(1, 101)]
    found = _log([*at, *odd]).dropped()
    assert found["a turn is a list"] == 3
    assert len(found) <= 21
    assert sum(found.values()) == 103


def test_no_form_at_all_still_ends_the_run() -> None:
    with pytest.raises(DataError, match="no row has a known form"):
        detect([{"a": 1}], DataSpec(max_dropped="100%"))


def test_of_millions_of_faults_the_first_of_every_sort_are_kept_and_all_are_counted() -> None:
    by_length = [RowIssue(number=n, reason=TOO_LONG, severity="dropped") for n in range(1, 3001)]
    log = _log([*by_length, RowIssue(number=3001, reason="is text", severity="dropped", at_fault=True)])
    assert (log.counts["dropped"], len(log.kept)) == (3001, 1001)
    with pytest.raises(DataError, match=r"row 3001 \(counted from 1\) is text$"):
        refuse_dropped(log, 3001, "data.rows", "error", "rows.json")


def _log(faults: list[RowIssue]) -> IssueLog:
    log = IssueLog()
    for fault in faults:
        log.add(fault)
    return log
