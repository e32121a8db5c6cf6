"""Which of its errors a training process can tell apart: CUDA and its libraries say most of theirs in text alone."""

from __future__ import annotations

import errno

import torch
import torch.distributed as dist

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")
_OF_A_MOMENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET}
"""What a network file system may fail with that answers the next time."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, the GPU's or the host's, is what was missing."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def may_pass(error: BaseException) -> bool:
    """Whether the same may work the next time: a lost peer, a GPU that failed, a file system that did not answer."""
    if isinstance(error, OSError):
        return error.errno in _OF_A_MOMENT
    return isinstance(error, dist.DistError | torch.AcceleratorError)
