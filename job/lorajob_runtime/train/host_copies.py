"""Copies of tensors in host memory, so that a thread can write them while training changes what they are copies of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class HostCopies:
    """One buffer for copies of fp32 tensors, kept from one time to the next; page-locked for those of a GPU.

    Taking page-locked memory is slow, and a copy to any other would stop the GPU's queue.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._buffer = torch.empty(0)
        self._copied: torch.cuda.Event | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the tensors by name, as views of the buffer: the ones taken before are gone.

        From a GPU they are there after `wait`; work that is put into its queue later does not change them.
        """
        size = sum(tensor.numel() for tensor in tensors.values())
        if self._buffer.numel() != size:
            self._buffer = torch.empty(size, dtype=torch.float32, pin_memory=self._is_cuda)
        copies: dict[str, Tensor] = {}
        start = 0
        for name, tensor in tensors.items():
            part = self._buffer[start : start + tensor.numel()].view(tensor.shape)
            copies[name] = part.copy_(tensor.detach(), non_blocking=self._is_cuda)
            start += tensor.numel()
        if self._is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return copies

    def wait(self) -> None:
        """Returns when the copies are there; it may be called from another thread."""
        if self._copied is not None:
            self._copied.synchronize()
