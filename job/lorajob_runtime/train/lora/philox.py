"""Dropout by a counter-based generator: whether an element is kept follows from a key and the element's place alone.

Philox4x32 with seven rounds, the fewest that passed every test of its authors (Salmon et al., Parallel random
numbers: as easy as 1, 2, 3, SC 2011). A counter gives eight 16-bit numbers: element e of a tensor takes number
e % 8192 // 1024 of counter e // 8192 * 1024 + e % 1024, so that neighbours are in neighbouring threads. No GPU model,
grid or earlier draw comes into it, so nothing has to be kept for the backward pass or for a resumed run.

On a GPU a Triton kernel does it in one pass where Triton works; torch's integer operations give the same numbers
anywhere, in some forty times as much traffic.
"""

from __future__ import annotations

import functools
import logging
import shutil

import torch
from torch import Tensor

ROUNDS = 7
LANE = 1024
"""Counters of a block; one of them serves eight elements that are so far apart."""
LEVELS = 2**16
_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_CHECKED_ELEMENTS = 3 * 8 * LANE + 5

_log = logging.getLogger(__name__)


def philox4x32(counter: list[Tensor], key: tuple[int, int], rounds: int) -> list[Tensor]:
    """Four 32-bit words, as int64, of four 32-bit words of a counter, as int64, and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of 32-bit words times a number, in 64-bit arithmetic that has a sign."""
    lower = (word & 0xFFFF) * multiplier
    upper = (word >> 16) * multiplier + (lower >> 16)
    return upper >> 16, ((upper & 0xFFFF) << 16) | (lower & 0xFFFF)


def kept(elements: int, key: int, probability: float, device: torch.device) -> Tensor:
    """Which of so many elements stay, as bools; by torch's own operations."""
    blocks = -(-elements // (8 * LANE))
    counter = torch.arange(blocks * LANE, device=device)
    zero = torch.zeros_like(counter)
    words = philox4x32([counter & _WORD, counter >> 32, zero, zero], _halves(key), ROUNDS)
    numbers = torch.stack([half.view(blocks, LANE) for word in words for half in (word & 0xFFFF, word >> 16)], dim=1)
    return (numbers >= threshold(probability)).view(-1)[:elements]


def threshold(probability: float) -> int:
    """The 16-bit numbers below it drop their element."""
    return round(probability * LEVELS)


def _halves(key: int) -> tuple[int, int]:
    """The key as two words of 31 bits, which every language passes as the same type."""
    return key & 0x7FFFFFFF, (key >> 31) & 0x7FFFFFFF


def _masked(rows: Tensor, key: int, probability: float) -> Tensor:
    result = torch.empty_like(rows)
    _write(rows, result, key, probability)
    return result


def _mask_in_place(rows: Tensor, key: int, probability: float) -> None:
    _write(rows, rows, key, probability)


def _write(source: Tensor, target: Tensor, key: int, probability: float) -> None:
    if source.is_cuda and has_kernel(source.device):
        write_by_kernel(source, target, key, probability)
    else:
        keep = kept(source.numel(), key, probability, source.device).view(source.shape)
        target.copy_(torch.where(keep, source, torch.zeros((), dtype=source.dtype, device=source.device)))


def write_by_kernel(source: Tensor, target: Tensor, key: int, probability: float) -> None:
    """Writes a contiguous tensor into another, or into itself, with its dropped elements 0; by Triton."""
    from lorajob_runtime.train.lora import philox_kernel

    philox_kernel.write(source, target, _halves(key), threshold(probability), rounds=ROUNDS, lane_size=LANE)


# operations of torch's dispatcher: whoever counts or traces what a pass does sees one of them, not what is inside
_library = torch.library.Library("lorajob", "DEF")
_library.define("masked(Tensor rows, int key, float probability) -> Tensor")
_library.define("mask_(Tensor(a!) rows, int key, float probability) -> ()")
for _backend in ("CPU", "CUDA"):
    _library.impl("masked", _masked, _backend)
    _library.impl("mask_", _mask_in_place, _backend)
_library.impl("masked", lambda rows, key, probability: torch.empty_like(rows), "Meta")
_library.impl("mask_", lambda rows, key, probability: None, "Meta")


def masked(rows: Tensor, key: int, probability: float) -> Tensor:
    """A contiguous tensor with its dropped elements 0; the others are not scaled."""
    result: Tensor = torch.ops.lorajob.masked(rows, key, probability)
    return result


def mask_(rows: Tensor, key: int, probability: float) -> Tensor:
    """The same in place."""
    torch.ops.lorajob.mask_(rows, key, probability)
    return rows


@functools.cache
def has_kernel(device: torch.device) -> bool:
    """Whether the Triton kernel works on a GPU: a C compiler is there, which Triton needs, and it is right."""
    if device.type != "cuda" or not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return False
    try:
        source = torch.ones(_CHECKED_ELEMENTS, dtype=torch.bfloat16, device=device)
        found = torch.empty_like(source)
        key = 2**61 + 12345
        write_by_kernel(source, found, key, 0.3)
        works = torch.equal(found.bool(), kept(source.numel(), key, 0.3, device))
    except Exception as error:  # noqa: BLE001 whatever it is, training goes on without it
        _log.warning("no Triton kernel for dropout on %s: %s", device, error)
        return False
    if not works:
        _log.warning("the Triton kernel for dropout gives wrong numbers on %s and is not used", device)
    return works
