"""What GPUs can compute and move, as their makers give it, and what connects them.

Standard library only. What training reaches of it is `step_time`'s to say.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

Network = Literal["infiniband", "ethernet"]

NETWORKS: tuple[Network, ...] = ("infiniband", "ethernet")

_INFINIBAND_OF_A_GPU, _ETHERNET_OF_A_NODE = 50e9, 12.5e9
"""Bytes a second in each direction: 400 Gb/s for every GPU, and 100 Gb/s for a node."""

_PCIE4, _PCIE5 = 32e9, 64e9


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuSpeed:
    """`teraflops`: dense bf16. `memory`, `link`: bytes a second, the link's in each direction within a node."""

    teraflops: int
    memory: float
    link: float
    fp8: bool | None = None
    """Whether it multiplies FP8; None: not known, as of a GPU of which only the size is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedGpu:
    """`name` is a regular expression; `gigabytes` what its memory is called, None where it comes in several sizes."""

    name: str
    gigabytes: int | None
    speed: GpuSpeed


def _gpu(name: str, gigabytes: int | None, teraflops: int, memory: float, link: float, *, fp8: bool = True) -> NamedGpu:
    speed = GpuSpeed(teraflops=teraflops, memory=memory * 1e12, link=link, fp8=fp8)
    return NamedGpu(name=name, gigabytes=gigabytes, speed=speed)


NAMED_GPUS = (
    _gpu(r"b200", 192, 2250, 8.0, 900e9),
    _gpu(r"mi300x?", 192, 1307, 5.3, 448e9),
    _gpu(r"h200", 141, 989, 4.8, 450e9),
    _gpu(r"h20", 96, 148, 4.0, 450e9),
    _gpu(r"rtx.?pro.?6000", 96, 503, 1.79, _PCIE5),
    _gpu(r"h800", 80, 989, 3.35, 200e9),
    _gpu(r"h100", 80, 989, 3.35, 450e9),
    _gpu(r"a800", 80, 312, 2.04, 200e9, fp8=False),
    _gpu(r"a100\S*40gb", 40, 312, 1.56, 300e9, fp8=False),
    _gpu(r"a100", None, 312, 2.04, 300e9, fp8=False),
    _gpu(r"l40s", 48, 362, 0.86, _PCIE4),
    _gpu(r"l40", 48, 181, 0.86, _PCIE4),
    _gpu(r"(?:rtx.?)?6000.?ada", 48, 364, 0.96, _PCIE4),
    _gpu(r"(?:rtx.?)?a6000", 48, 155, 0.77, _PCIE4, fp8=False),
    _gpu(r"a40", 48, 150, 0.7, _PCIE4, fp8=False),
    _gpu(r"l4", 24, 121, 0.3, _PCIE4),
    _gpu(r"a10", 24, 125, 0.6, _PCIE4, fp8=False),
    _gpu(r"a30", 24, 165, 0.93, _PCIE4, fp8=False),
    _gpu(r"(?:rtx.?)?4090", 24, 165, 1.01, _PCIE4),
    _gpu(r"(?:rtx.?)?3090", 24, 71, 0.94, _PCIE4, fp8=False),
)
"""By what they are called, the longer name first."""

_OF_SIZE = {24: "l4", 40: "a100-40gb", 48: "l40s", 80: "a100", 96: "h20", 141: "h200", 192: "b200"}
"""Of the sizes of GPU_SIZES, the GPU that each stands for where no name is known."""


def node_bytes(network: Network, gpus: int) -> float:
    """Bytes a second into a node of so many GPUs, and out of it."""
    return _INFINIBAND_OF_A_GPU * gpus if network == "infiniband" else _ETHERNET_OF_A_NODE


def named(text: str) -> NamedGpu | None:
    """The GPU that a text names, as a whole word: an RTX A1000 is no A100."""
    return next((gpu for gpu in NAMED_GPUS if re.search(rf"(?<![a-z0-9])(?:{gpu.name})(?!\d)", text.lower())), None)


def of_size(gigabytes: int) -> GpuSpeed:
    """Of the usual GPU with so much memory, as it is called in GPU_SIZES."""
    found = named(_OF_SIZE[gigabytes])
    if found is None:
        raise KeyError(gigabytes)
    return dataclasses.replace(found.speed, fp8=None)
