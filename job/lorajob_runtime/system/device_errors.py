"""Which of its errors a training process can tell apart: CUDA and its libraries say most of theirs in text alone."""

from __future__ import annotations

import errno

import torch
import torch.distributed as dist

from lorajob_runtime.contract.errors import ConfigError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")
_NO_KERNEL = "no kernel image is available"
"""What CUDA says on a GPU of a generation that the program was not built for: one of the two must be another."""
TRANSIENT_ERRNOS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET}
"""What a network file system may fail with that answers the next time."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, the GPU's or the host's, is what was missing."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def of_this_gpu(error: BaseException) -> ConfigError | None:
    """The error for a GPU that torch has no kernels for, which trying again does not change; None for any other."""
    if not isinstance(error, RuntimeError) or _NO_KERNEL not in str(error):
        return None
    return ConfigError("the installed torch has no kernels for this GPU", hint="take a newer GPU, or device: cpu")


def may_pass(error: BaseException) -> bool:
    """Whether the same may work the next time: a lost peer, a GPU that failed, a file system that did not answer."""
    if isinstance(error, OSError):
        return error.errno in TRANSIENT_ERRNOS
    if _NO_KERNEL in str(error):
        return False
    return isinstance(error, dist.DistError | torch.AcceleratorError)
