"""Dropout masks for LoRA's input, made fast and the same again after a restart.

A mask is a function of (seed, step, rank, micro-batch, module), so no generator state has to be kept: a resumed run,
and a layer recomputed under gradient checkpointing, draws what was drawn before. Projections that read the same
input (q, k and v; gate and up) share one mask, as they would share a dropout layer in front of them.

On a CPU torch's bernoulli draws one number after the other, and took a third of a step; numpy's SFC64 gives four
16-bit numbers a draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_LEVELS = 2**16


@dataclass(slots=True)
class DropoutMasks:
    """The masks of one micro-batch at a time; `start` says which."""

    key: tuple[int, ...] = ()
    _input: Tensor | None = field(default=None, repr=False)
    _mask: Tensor | None = field(default=None, repr=False)
    _probability: float = 0.0

    def start(self, *key: int) -> None:
        """Names the micro-batch: every mask until the next call is a function of this key and of the module."""
        self.key = key
        self._input = self._mask = None

    def mask(self, inputs: Tensor, probability: float, module: int) -> Tensor:
        """0 or 1 / (1 - probability) for every element of `inputs`, in its type; the same for the same object."""
        if self._mask is None or self._input is not inputs or self._probability != probability:
            self._input, self._probability = inputs, probability
            self._mask = self._draw(inputs, probability, module)
        return self._mask

    def _draw(self, inputs: Tensor, probability: float, module: int) -> Tensor:
        scale = 1 / (1 - probability)
        if inputs.is_cuda:
            generator = torch.Generator(inputs.device).manual_seed(_seed((*self.key, module)))
            kept = torch.empty_like(inputs).bernoulli_(1 - probability, generator=generator)
            return kept.mul_(scale)
        draws = np.random.SFC64((*self.key, module)).random_raw(-(-inputs.numel() // 4))
        numbers = torch.from_numpy(draws.view(np.int16)[: inputs.numel()]).view(inputs.shape)
        threshold = round(probability * _LEVELS) - _LEVELS // 2
        return (numbers >= threshold).to(inputs.dtype).mul_(scale)


def _seed(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
