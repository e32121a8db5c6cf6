"""Trains a run folder on ranks of which one has little memory; arguments: FOLDER, then what it has as JSON.

{"rank": 1, "tokens": 100, "calls": 7}: on rank 1, from the model's 7th forward pass on, one of more than 100 tokens
finds no memory, half of them in the backward pass. {"free": {"1": 2000000}}: what a rank's device has free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train import loop, session
from lorajob_runtime.train.parallel import memory_budget


def main(arguments: list[str]) -> None:
    folder, short = RunFolder(Path(arguments[0])), json.loads(arguments[1])
    begin, free_bytes = session.start, memory_budget.free_bytes

    def start(*given: Any) -> session.Session:
        run = begin(*given)
        if run.rank == short.get("rank"):
            _limit(run.model, short["tokens"], short["calls"])
        return run

    def free(device: torch.device, processes: int) -> int:
        rank = str(dist.get_rank() if dist.is_initialized() else 0)
        return int(short.get("free", {}).get(rank, free_bytes(device, processes)))

    session.start, memory_budget.free_bytes = start, free
    try:
        loop.train(train_job.loads(folder.train_job.read_text()), folder)
    finally:
        session.start, memory_budget.free_bytes = begin, free_bytes
    if dist.is_initialized():
        dist.destroy_process_group()


def _limit(model: nn.Module, tokens: int, calls: int) -> None:
    done = 0

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if done >= calls and kwargs["input_ids"].shape[1] > tokens and done % 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def after(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if done >= calls and kwargs["input_ids"].shape[1] > tokens and output.logits.requires_grad:
            output.logits.register_hook(_fail)

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.register_forward_hook(after, with_kwargs=True)


def _fail(gradient: Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
