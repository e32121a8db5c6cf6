"""The Triton kernel of `philox`: one pass that reads a tensor and writes it with its dropped elements 0.

Importing this module imports Triton. With TRITON_INTERPRET=1 in the environment it runs on a CPU.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor


@triton.jit
def _write_lane(source, target, place, size, numbers, threshold):  # type: ignore[no-untyped-def]
    inside = place < size
    value = tl.load(source + place, mask=inside)
    tl.store(target + place, tl.where(numbers >= threshold, value, 0.0), mask=inside)


@triton.jit(do_not_specialize=["key0", "key1", "threshold"])  # type: ignore[untyped-decorator]
def write_block(  # type: ignore[no-untyped-def]
    source, target, size, key0, key1, threshold, rounds: tl.constexpr, lane_size: tl.constexpr
):
    """One block of 8 * lane_size elements: `source` and `target` may be the same."""
    block = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, lane_size)
    counter = block * lane_size + lane
    low = counter.to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    zero = low * 0
    w0, w1, w2, w3 = tl.philox_impl(low, high, zero, zero, key0.to(tl.uint32), key1.to(tl.uint32), rounds)
    place = block * (8 * lane_size) + lane
    _write_lane(source, target, place, size, (w0 & 0xFFFF).to(tl.int32), threshold)
    _write_lane(source, target, place + lane_size, size, (w0 >> 16).to(tl.int32), threshold)
    _write_lane(source, target, place + 2 * lane_size, size, (w1 & 0xFFFF).to(tl.int32), threshold)
    _write_lane(source, target, place + 3 * lane_size, size, (w1 >> 16).to(tl.int32), threshold)
    _write_lane(source, target, place + 4 * lane_size, size, (w2 & 0xFFFF).to(tl.int32), threshold)
    _write_lane(source, target, place + 5 * lane_size, size, (w2 >> 16).to(tl.int32), threshold)
    _write_lane(source, target, place + 6 * lane_size, size, (w3 & 0xFFFF).to(tl.int32), threshold)
    _write_lane(source, target, place + 7 * lane_size, size, (w3 >> 16).to(tl.int32), threshold)


def write(source: Tensor, target: Tensor, key: tuple[int, int], threshold: int, *, rounds: int, lane_size: int) -> None:
    """Writes a contiguous tensor into another, its elements whose number is below `threshold` as 0."""
    if not (source.is_contiguous() and target.is_contiguous()):
        raise ValueError("dropout counts the elements of contiguous tensors only")
    blocks = -(-source.numel() // (8 * lane_size))
    write_block[(blocks,)](source, target, source.numel(), *key, threshold, rounds=rounds, lane_size=lane_size)
