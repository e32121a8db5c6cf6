"""What the driver says about the GPUs that torch would see: importing torch takes seconds. Standard library only."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

_MAJOR_OF_CAPABILITY = 75
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of cuda.h."""
_MINOR_OF_CAPABILITY = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR."""
_AMPERE = (8, 0)
"""Compute capability of the first GPUs that multiply bf16."""
OLDEST_CAPABILITY = (7, 5)
"""Compute capability of the oldest GPUs that torch's packages for CUDA 13 have kernels for (Turing)."""


def visible_gpus() -> int:
    """How many GPUs torch would see, asked of the driver: importing torch takes seconds. 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpus_multiply_bf16() -> bool | None:
    """Whether every GPU that torch would see is of Ampere or newer; None where there is none to ask."""
    oldest = oldest_capability()
    return None if oldest is None else oldest >= _AMPERE


def oldest_capability() -> tuple[int, int] | None:
    """The lowest compute capability of the GPUs that torch would see; None where there is none to ask."""
    majors = _of_each_gpu(
        ctypes.c_int, lambda driver, value, gpu: driver.cuDeviceGetAttribute(value, _MAJOR_OF_CAPABILITY, gpu)
    )
    minors = _of_each_gpu(
        ctypes.c_int, lambda driver, value, gpu: driver.cuDeviceGetAttribute(value, _MINOR_OF_CAPABILITY, gpu)
    )
    return min(zip(majors, minors, strict=True), default=None)


def gpu_bytes() -> int | None:
    """Memory of the smallest GPU that torch would see, asked of the driver; None where there is none to ask."""
    sizes = _of_each_gpu(ctypes.c_size_t, lambda driver, value, gpu: driver.cuDeviceTotalMem_v2(value, gpu))
    return min(sizes, default=None)


def _of_each_gpu(form: type[Any], ask: Callable[[Any, Any, ctypes.c_int], int]) -> list[int]:
    """What the driver puts into a number of a C type for each GPU; empty where it does not answer for all."""
    found = []
    if count := visible_gpus():
        driver = ctypes.CDLL("libcuda.so.1")
        for number in range(count):
            gpu, value = ctypes.c_int(0), form(0)
            if driver.cuDeviceGet(ctypes.byref(gpu), number) or ask(driver, ctypes.byref(value), gpu):
                return []
            found.append(int(value.value))
    return found
