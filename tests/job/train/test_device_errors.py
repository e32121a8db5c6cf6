"""Which faults of loading and training end a run for good, and which are tried again."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract.errors import ModelError, OutOfMemoryError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.system import device_errors
from lorajob_runtime.train.base_model import loading

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
]
MAY_PASS = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    dist.DistNetworkError("the connection was reset by the peer"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
]
FINAL = [OSError(errno.ENOENT, "No such file or directory"), RuntimeError("size mismatch"), ValueError("no such class")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_memory_that_is_missing_is_told_apart_whatever_says_so(error: Exception) -> None:
    assert device_errors.is_out_of_memory(error)


@pytest.mark.parametrize("error", [*MAY_PASS, *FINAL], ids=str)
def test_nothing_else_passes_for_it(error: Exception) -> None:
    assert not device_errors.is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((each, OutOfMemoryError) for each in OUT_OF_MEMORY[:3]),
        *((each, type(each)) for each in MAY_PASS),
        *((each, ModelError) for each in FINAL),
    ],
    ids=lambda value: str(value),
)
def test_only_a_model_that_cannot_be_loaded_at_all_is_the_models_fault(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)

    with pytest.raises(expected) as caught:
        loading.load(tiny_model, ModelSpec(name="tiny"), torch.float32, torch.device("cpu"))

    assert type(caught.value) is expected
