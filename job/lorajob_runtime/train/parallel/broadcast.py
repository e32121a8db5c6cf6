"""Sends to the other nodes what only node 0 has on its disk: the tokenised data and the checkpoint to resume from.

It goes the way that gradients go, so the other nodes need no storage, no dataset and no keys.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.system import atomic, environment
from lorajob_runtime.train.job import TrainJob

T = TypeVar("T")

CHUNK_BYTES = 64 * 2**20
"""How much is sent at a time: what it costs in memory, once on every device."""


def from_first_node(job: TrainJob, folder: RunFolder, accelerator: Accelerator) -> TrainJob:
    """The job with node 0's choice of a checkpoint; the files it needs are then in the run folder of every node.

    On one node it does nothing. Called by all ranks together.
    """
    if not _spans_nodes(accelerator):
        return job
    resume_step = broadcast_object(job.resume_step)
    sources = [folder.data]
    if resume_step is not None:
        sources.append(folder.checkpoint(resume_step))
    files = broadcast_object(_files(folder.root, sources))
    writes = environment.torchrun().node > 0 and accelerator.is_local_main_process
    for name, size in files:
        _send_file(folder.root / name, size, accelerator, writes=writes)
    accelerator.wait_for_everyone()
    return dataclasses.replace(
        job, resume_step=resume_step, evaluation_pending=broadcast_object(job.evaluation_pending)
    )


def check_same_weights(fingerprint: str, job: TrainJob, accelerator: Accelerator) -> None:
    """Raises ModelError on a node whose weights are not those of node 0. Called by all ranks together."""
    if _spans_nodes(accelerator) and (first := broadcast_object(fingerprint)) != fingerprint:
        raise ModelError(
            f"the weights in {job.model_path} on node {environment.torchrun().node} differ from those of node 0 "
            f"({fingerprint} and {first})",
            hint="set model.revision, and let the nodes share one cache",
        )


def _spans_nodes(accelerator: Accelerator) -> bool:
    ranks = int(accelerator.num_processes)
    return ranks > environment.torchrun().ranks_here(ranks)


def is_first() -> bool:
    """Whether this is rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def broadcast_object(value: T) -> T:
    """Rank 0's value, on every rank. Called by all ranks together."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def _files(root: Path, folders: list[Path]) -> list[tuple[str, int]]:
    """(path below `root`, size in bytes) of every file in `folders`."""
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(str(path.relative_to(root)), path.stat().st_size) for path in found]


def _send_file(path: Path, size: int, accelerator: Accelerator, *, writes: bool) -> None:
    """Sends rank 0's file to all; `writes`: this rank keeps it. It takes its name when it is whole."""
    is_source = accelerator.is_main_process
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.replacing_file(path) if writes else contextlib.nullcontext(Path(os.devnull)) as draft,
        open(path if is_source else draft, "rb" if is_source else "wb") as file,
    ):
        for start in range(0, size, CHUNK_BYTES):
            length = min(CHUNK_BYTES, size - start)
            if is_source:
                chunk = torch.frombuffer(bytearray(file.read(length)), dtype=torch.uint8).to(accelerator.device)
            else:
                chunk = torch.empty(length, dtype=torch.uint8, device=accelerator.device)
            dist.broadcast(chunk, src=0)
            if writes:
                file.write(chunk.cpu().numpy().tobytes())
