"""The coefficients of the cost model are what training's code does now: counted anew, kind by kind."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
try:
    from counting import coefficients
finally:
    sys.path.pop(0)

from lorajob_runtime.models import kernel_costs
from lorajob_runtime.models.kernel_costs import Experts, LayerCost

RENEW = "put what `python bench/kernel_counts.py --coefficients` prints into models/kernel_costs.py"


def _row(counted: LayerCost) -> LayerCost:
    return next(
        row for row in kernel_costs.LAYERS if (row.head_norms, row.experts) == (counted.head_norms, counted.experts)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "experts"), coefficients.KINDS)
def test_the_rows_are_what_is_counted(model: str, experts: Experts) -> None:
    counted = coefficients.counted(model, experts)

    row = _row(counted.row)
    for name in ("forward", "backward"):
        then, now = (dataclasses.asdict(getattr(each, name)) for each in (row, counted.row))
        assert then == pytest.approx(now, rel=0.03), RENEW
    if (model, experts) == ("qwen3-8b", "none"):
        assert pytest.approx(counted.head_bytes, rel=0.03) == kernel_costs.HEAD_BYTES, RENEW


def test_every_kind_is_counted_once() -> None:
    assert len(kernel_costs.LAYERS) == len(coefficients.KINDS)
