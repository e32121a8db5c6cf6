"""Which precision `auto` is, on processors that are faster in one or the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorajob_runtime.report import lines
from lorajob_runtime.train import precision
from lorajob_runtime.train.precision import Choice

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("bf16", "fp32", "expected"), [(0.004, 0.010, "bf16"), (0.010, 0.0071, "fp32"), (0.005, 0.005, "bf16")]
)
def test_the_faster_one_is_taken_by_the_best_of_several_rounds(bf16: float, fp32: float, expected: str) -> None:
    # each is once disturbed by another program
    seconds = {torch.bfloat16: [1.0, *[bf16] * 9], torch.float32: [*[fp32] * 4, 1.0, *[fp32] * 5]}

    choice = precision.faster(lambda dtype: seconds[dtype].pop(0))

    assert choice.precision == expected
    assert choice.milliseconds == pytest.approx({"bf16": bf16 * 1e3, "fp32": fp32 * 1e3})


def test_both_are_really_measured() -> None:
    choice = precision.faster(precision.product_seconds)

    assert set(choice.milliseconds) == {"bf16", "fp32"}
    assert min(choice.milliseconds.values()) == choice.milliseconds[choice.precision] > 0


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "measures"),
    [
        ("auto", "cpu", True, True),
        ("auto", "cpu", False, False),
        ("fp32", "cpu", True, False),
        ("bf16", "cpu", True, False),
        ("auto", "cuda", True, False),
    ],
)
def test_it_is_measured_only_where_that_can_change_something(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str, has_bf16: bool, measures: bool
) -> None:
    native = asked if asked != "auto" else "bf16" if has_bf16 else "fp32"
    monkeypatch.setattr(precision, "choose_precision", lambda *_: native)
    measured: list[Any] = []
    monkeypatch.setattr(precision, "product_seconds", lambda dtype: measured.append(dtype) or dtype.itemsize)

    choice = precision.choose(asked, torch.device(device))

    assert (choice.precision, bool(measured), bool(choice.milliseconds)) == (native, measures, measures)


def test_all_ranks_take_the_answer_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Choice(precision="fp32", milliseconds={"bf16": 2.0, "fp32": 1.0})
    monkeypatch.setattr(precision, "choose_precision", lambda *_: "bf16")
    monkeypatch.setattr(precision, "product_seconds", lambda _: pytest.fail("another rank measures"))
    monkeypatch.setattr(precision.broadcast, "is_first", lambda: False)
    monkeypatch.setattr(precision.broadcast, "broadcast_object", lambda _: first)

    assert precision.choose("auto", CPU) == first


def test_the_report_says_what_was_measured() -> None:
    event = {"event": "report", "name": "decided", "processes": 1, "device": "cpu", "precision": "fp32"}
    event |= {"gradient_checkpointing": False, "global_batch": 4, "total_steps": 9}
    event["product_milliseconds"] = {"bf16": 12.3, "fp32": 8.1}

    said = [line.text for line in lines.lines(event)]

    assert said[-1] == "precision: fp32, since this processor takes 12.3 ms in bf16 and 8.1 ms in fp32 for a product"
