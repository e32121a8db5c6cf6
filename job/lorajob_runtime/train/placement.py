"""Decided before anything is loaded: whether the weights are sharded, and whether routed experts train."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lorajob_runtime import architecture, estimate
from lorajob_runtime.train import memory, sharding
from lorajob_runtime.train.model import Precision
from lorajob_runtime.train.plan import TrainPlan
from lorajob_runtime.train.sharding import Sharding


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """`experts`: routed experts get an adapter. `replicas`: sets of ranks that each hold all sharded weights."""

    sharded: bool
    experts: bool
    replicas: int = 1

    def sharding(self, ranks: int) -> Sharding:
        """How the weights lie on `ranks` ranks."""
        return sharding.over(ranks, sharded=self.sharded, replicas=self.replicas)


def choose(plan: TrainPlan, accelerator: Accelerator, precision: Precision) -> Placement:
    """By the estimate of a run's memory and what rank 0's device has; what the spec says outright stands.

    Called by all ranks together: rank 0's choice holds.
    """
    box = [_choose(plan, accelerator, precision)]
    broadcast_object_list(box)
    return box[0]


def _choose(plan: TrainPlan, accelerator: Accelerator, precision: Precision) -> Placement:
    spec = plan.spec
    ranks = accelerator.num_processes
    here = memory.processes_here(ranks)
    shapes = architecture.read(json.loads((Path(plan.model_path) / "config.json").read_text(encoding="utf-8")))
    if shapes is None:
        # nothing to reckon with: as asked, and else as a model that fits
        return Placement(sharded=spec.train.sharding == "fsdp", experts=spec.lora.experts is not False)
    chosen = estimate.choose(
        shapes,
        spec,
        gpus=here,
        nodes=max(1, ranks // here),
        gpu_bytes=_device_bytes(accelerator.device, here),
        precision=precision,
    )
    return Placement(sharded=chosen.sharding == "fsdp", experts=chosen.experts, replicas=chosen.replicas)


def _device_bytes(device: torch.device, processes_here: int) -> int:
    """All memory of a GPU; of a host, what each of its processes may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return memory.free_bytes(device, processes_here)
