"""The learning rate of every step is that of transformers' schedule of the same name."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from lorajob_runtime.contract.spec import TrainSpec
from lorajob_runtime.train import schedule


@pytest.mark.parametrize("warmup", [0, 3, 0.25])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_rates_equal_those_of_transformers(name: str, warmup: float) -> None:
    train = TrainSpec(scheduler=name, warmup=warmup, learning_rate=0.5)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=schedule.warmup_steps(train, 20),
        num_training_steps=20,
    )
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()

    rates = [schedule.learning_rate(train, step=step, total_steps=20) for step in range(1, 21)]

    assert rates == pytest.approx(expected)


def test_a_warmup_below_one_is_a_share_of_all_steps() -> None:
    assert schedule.warmup_steps(TrainSpec(warmup=0.1), 702) == 71
    assert schedule.warmup_steps(TrainSpec(warmup=5), 702) == 5
