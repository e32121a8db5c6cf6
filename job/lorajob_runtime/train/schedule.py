"""Learning rate of each step, by the formulas of transformers' schedules of the same names."""

from __future__ import annotations

import math

from lorajob_runtime.contract.spec import TrainSpec


def warmup_steps(train: TrainSpec, total_steps: int) -> int:
    """`warmup` in steps: a value below 1 is a share of all steps."""
    return math.ceil(train.warmup * total_steps) if train.warmup < 1 else int(train.warmup)


def learning_rate(train: TrainSpec, *, step: int, total_steps: int) -> float:
    """The rate that `step` (from 1) is made with."""
    warmup = warmup_steps(train, total_steps)
    done = step - 1
    if done < warmup:
        return train.learning_rate * done / max(1, warmup)
    if train.scheduler == "constant":
        return train.learning_rate
    progress = (done - warmup) / max(1, total_steps - warmup)
    if train.scheduler == "linear":
        return train.learning_rate * max(0.0, 1 - progress)
    return train.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
