"""Dropout of LoRA's input, made fast and the same again after a restart.

What is dropped is a function of (seed, step, rank, micro-batch, module), so no generator state has to be kept: a
resumed run, and a layer recomputed under gradient checkpointing, drops what was dropped before. Projections that read
the same input (q, k and v; gate and up) share one draw, as they would share a dropout layer in front of them. What is
kept is not scaled: the factor 1 / (1 - probability) goes into the products of the adapter, where it is not rounded.

Draws have versions, since a run has to go on with those that it began with:

1. on a GPU torch's Bernoulli, whose numbers depend on the model of the GPU;
2. on a GPU a counter-based generator, see `philox`.

On a CPU both are numpy's SFC64, which gives four 16-bit numbers a draw where torch's Bernoulli took a third of a step.
There, and in version 1, one bit or byte an element is kept for the backward pass.
"""

from __future__ import annotations

import hashlib
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lorajob_runtime.train.lora import philox

FIRST, NEWEST = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What one input has dropped. `kept`: bits (uint8, on a CPU) or bools that say what stays; None: `key` does."""

    probability: float
    key: int = 0
    kept: Tensor | None = None


@dataclass(slots=True)
class DropoutMasks:
    """The draws of one micro-batch at a time; `start` says which."""

    version: int = NEWEST
    key: tuple[int, ...] = ()
    _input: Callable[[], Tensor | None] = field(default=lambda: None, repr=False)
    _draw: Draw | None = field(default=None, repr=False)

    def start(self, *key: int) -> None:
        """Names the micro-batch: every draw until the next call is a function of this key and of the module."""
        self.key = key
        self._draw = None

    def draw(self, inputs: Tensor, probability: float, module: int) -> Draw:
        """What is dropped of `inputs`, read by the module of that number; the same for the same object."""
        if self._draw is None or self._input() is not inputs or self._draw.probability != probability:
            # not held: it is a layer's widest tensor
            self._input = weakref.ref(inputs)
            self._draw = self._new(inputs, probability, (*self.key, module))
        return self._draw

    def _new(self, inputs: Tensor, probability: float, key: tuple[int, ...]) -> Draw:
        if inputs.device.type == "cpu":
            return Draw(probability=probability, kept=_sfc64_bits(inputs.numel(), probability, key))
        if self.version == FIRST:
            generator = torch.Generator(inputs.device).manual_seed(_seed(key))
            kept = torch.empty_like(inputs).bernoulli_(1 - probability, generator=generator).bool()
            return Draw(probability=probability, kept=kept)
        return Draw(probability=probability, key=_hash(key))


def newest(device: torch.device) -> int:
    """The version of the draws that a new run takes; without the kernel, the newest one's would cost more than it."""
    return NEWEST if device.type == "cpu" or philox.has_kernel(device) else FIRST


def masked(rows: Tensor, draw: Draw, kept: Tensor | None) -> Tensor:
    """A copy of `rows` with what is dropped 0. `kept` is the draw's, which autograd may have held meanwhile."""
    if kept is None:
        return philox.masked(rows.contiguous(), draw.key, draw.probability)
    return _times(rows, _bools(kept, rows))


def mask_(rows: Tensor, draw: Draw, kept: Tensor | None) -> Tensor:
    """The same in place, of contiguous rows."""
    if kept is None:
        return philox.mask_(rows, draw.key, draw.probability)
    keep = _bools(kept, rows)
    (rows.view(torch.int16) if rows.element_size() == 2 else rows).mul_(keep)
    return rows


def _times(rows: Tensor, keep: Tensor) -> Tensor:
    """The product of bools and 16-bit numbers: as integers on a CPU, which is three times as fast as `where`."""
    if rows.element_size() == 2:
        return (rows.view(torch.int16) * keep).view(rows.dtype)
    return rows * keep


def _bools(kept: Tensor, like: Tensor) -> Tensor:
    """One number, 0 or 1, for each element of `like`."""
    if kept.dtype == torch.uint8:
        kept = torch.from_numpy(np.unpackbits(kept.numpy(), count=like.numel()))
    return kept.view(like.shape)


def _sfc64_bits(count: int, probability: float, key: tuple[int, ...]) -> Tensor:
    draws = np.random.SFC64(key).random_raw(-(-count // 4))
    limit = philox.threshold(probability) - philox.LEVELS // 2
    return torch.from_numpy(np.packbits(draws.view(np.int16)[:count] >= limit))


def _seed(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def _hash(key: tuple[int, ...]) -> int:
    """62 bits that follow from the numbers of a key."""
    numbers = struct.pack(f"<{len(key)}q", *key)
    return int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "little") >> 2
