"""Chooses the precision of the frozen weights: what is asked for, or what this device multiplies fastest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.train.base_model.forward import DTYPES, choose_precision
from lorajob_runtime.train.parallel import broadcast

_TOKENS, _INPUTS, _OUTPUTS = 640, 576, 1536
"""A micro-batch on a CPU, through the widest product of SmolLM2-135M: about a gigaflop, 10 ms of a core."""
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A precision; and milliseconds of the products that it was chosen by, none where nothing had to be measured."""

    precision: Precision
    milliseconds: dict[Precision, float] = field(default_factory=dict)


def choose(asked: str, device: torch.device) -> Choice:
    """What is asked for; auto on a GPU: bf16 where it has it; on a CPU: the faster one.

    A processor may have instructions for bf16 and be slower with them than in fp32. Measured by rank 0, whose answer
    holds for all: called by all ranks together. Raises ConfigError for bf16 that cannot work.
    """
    native = choose_precision(asked, device)
    if asked != "auto" or device.type != "cpu":
        return Choice(precision=native)
    if broadcast.is_first():
        mine = Choice(precision=native) if native == "fp32" else faster(product_seconds)
    else:
        mine = Choice(precision=native)
    return broadcast.broadcast_object(mine)


def faster(seconds: Callable[[torch.dtype], float]) -> Choice:
    """The precision whose products take less time, bf16 where they take the same: it takes half the memory.

    The best of several rounds in turns: the first one is slow by itself, and other programs can only slow one down.
    """
    rounds = [{name: seconds(dtype) for name, dtype in DTYPES.items()} for _ in range(_ROUNDS)]
    best = {name: round(min(each[name] for each in rounds) * 1e3, 2) for name in DTYPES}
    return Choice(precision="bf16" if best["bf16"] <= best["fp32"] else "fp32", milliseconds=best)


@torch.no_grad()
def product_seconds(dtype: torch.dtype) -> float:
    """Time of a frozen matrix's products, forward and for the gradient of its input."""
    inputs, weight = torch.ones(_TOKENS, _INPUTS, dtype=dtype), torch.ones(_OUTPUTS, _INPUTS, dtype=dtype)
    began = time.perf_counter()
    (inputs @ weight.t()) @ weight
    return time.perf_counter() - began
