"""Trains several run folders one after the other in the same processes: starting these takes longer than training."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train import loop


def main(roots: list[str]) -> None:
    for root in roots:
        folder = RunFolder(Path(root))
        loop.train(train_job.loads(folder.train_job.read_text()), folder)
    if dist.is_initialized():
        dist.destroy_process_group()
