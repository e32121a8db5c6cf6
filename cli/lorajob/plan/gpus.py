"""GPUs as people and platforms name them: how much memory one has, and how much it can compute."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorajob.errors import UsageError
from lorajob.platform import quantities
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models import gpu_speeds
from lorajob_runtime.models.gpu_sizes import GIBIBYTE, GPU_SIZES
from lorajob_runtime.models.gpu_speeds import GpuSpeed

if TYPE_CHECKING:
    from lorajob.platform.platform_config import Platform

_LABEL = "nvidia.com/gpu.memory"
"""In MiB, as NVIDIA's feature discovery sets it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU: its memory in bytes, None where nobody knows, who says so, and what it can compute and move."""

    size: int | None
    source: str
    speed: GpuSpeed | None = None


UNKNOWN = Gpu(size=None, source="not known")
NO_GPU = Gpu(size=None, source="the platform trains on CPUs")


def find(spec: RunSpec, platform: Platform | None, said: str | None = None) -> Gpu:
    """What is known of a run's GPUs: what the user says, else the labels of the platform's GPU type, else its name.

    A platform whose CPUs stand in for GPUs has none to know of. Raises UsageError for what is no size.
    """
    if said is not None:
        return _gpu(_size_of(said), f"--gpu-memory {said}", spec.resources.gpu_type or "")
    if platform is not None and platform.device == "cpu":
        return NO_GPU
    kind = spec.resources.gpu_type
    if kind is not None:
        labels = platform.scheduling.gpu_types.get(kind, {}) if platform is not None else {}
        names = " ".join([*labels.values(), kind])
        if labels.get(_LABEL, "").isdigit():
            return _gpu(int(labels[_LABEL]) * 2**20, f"the platform's GPU type {kind}", names)
        for text, source in (
            (" ".join(labels.values()), f"the platform's GPU type {kind}"),
            (kind, f"GPU type {kind}"),
        ):
            if (gb := _gigabytes(text)) is not None:
                return _gpu(_nominal(gb), source, names)
    if platform is not None and platform.resources.gpu_memory is not None:
        size = int(quantities.amount(platform.resources.gpu_memory, "the platform's resources.gpuMemory"))
        return _gpu(size, "the platform's resources.gpuMemory", kind or "")
    return UNKNOWN


def _gpu(size: int, source: str, names: str) -> Gpu:
    """`names` is all that the GPU is called: of a part of one (MIG) they do not tell what it can compute."""
    known = gpu_speeds.named(names) if "mig" not in names.lower() else None
    nearest = min(GPU_SIZES, key=lambda gb: abs(GPU_SIZES[gb] * GIBIBYTE - size))
    return Gpu(size=size, source=source, speed=gpu_speeds.of_size(nearest) if known is None else known.speed)


def _size_of(text: str) -> int:
    """`80` and `80GB` are what a GPU is called, `79Gi` and `79GiB` are exact."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|gi)?", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--gpu-memory is {text!r}: it must be like 80, 80GB or 79GiB")
    if match[2] in ("gib", "gi"):
        return round(float(match[1]) * GIBIBYTE)
    return _nominal(float(match[1]))


def _nominal(gb: float) -> int:
    """Bytes that torch finds on a GPU called so."""
    known = GPU_SIZES.get(round(gb)) if gb == round(gb) else None
    # what is called 80 GB has 80 GiB less what the driver keeps, and error correction on some
    return round((gb * 0.93 if known is None else known) * GIBIBYTE)


def _gigabytes(text: str) -> float | None:
    """GB of a GPU by its name: NVIDIA-A100-SXM4-80GB, of a part of one the part's, or that of one known by its name."""
    written = re.findall(r"(\d+(?:\.\d+)?)\s?gb", text.lower())
    if written:
        return float(written[-1])
    known = gpu_speeds.named(text)
    return None if known is None else known.gigabytes
