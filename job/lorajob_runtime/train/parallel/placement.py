"""Decides before anything is loaded whether the weights are sharded, and whether routed experts train."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from lorajob_runtime.models import architecture, config_files, lora_weights, placement
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.models.placement import Placement
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.system import environment
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.parallel import broadcast, memory_budget

_MOST_WEIGHTS = 0.8
"""Share of a GPU's memory that the weights of a model of unknown shapes may take before they are sharded."""


def choose(job: TrainJob, accelerator: Accelerator, precision: Precision, *, experts: bool | None) -> Placement:
    """By the estimate of a run's memory and what rank 0's device has; what the spec says outright stands.

    `experts` is what was decided at the first start. Called by all ranks together: rank 0's choice holds. Raises
    ModelError for a folder without a model's configuration.
    """
    return broadcast.broadcast_object(_choose(job, accelerator, precision, experts))


def _choose(job: TrainJob, accelerator: Accelerator, precision: Precision, experts: bool | None) -> Placement:
    spec = job.spec
    ranks = accelerator.num_processes
    here = environment.torchrun().ranks_here(ranks)
    shapes = _shapes(job)
    if shapes is None:
        wanted = spec.lora.experts is not False if experts is None else experts
        return Placement(sharded=_shards_unknown(job, accelerator.device, precision, here), experts=wanted)
    chosen = placement.choose(
        shapes,
        spec,
        gpus=here,
        nodes=max(1, ranks // here),
        gpu_bytes=_device_bytes(accelerator.device, here),
        precision=precision,
        experts=experts,
    )
    return Placement(sharded=chosen.sharded, experts=chosen.experts, replicas=chosen.replicas)


def wants_experts(job: TrainJob) -> bool:
    """Whether the spec asks for adapters on routed experts that the model is known to have."""
    shapes = _shapes(job)
    return shapes is not None and lora_weights.wants_experts(shapes, job.spec.lora)


def _shapes(job: TrainJob) -> Architecture | None:
    return architecture.read(config_files.read_config(Path(job.model_path) / config_files.CONFIG))


def _shards_unknown(job: TrainJob, device: torch.device, precision: Precision, here: int) -> bool:
    """Whether a model is sharded of which nothing is known but its files: as asked, else if they fill a GPU."""
    if job.spec.train.sharding != "auto":
        return job.spec.train.sharding == "fsdp"
    if job.spec.model.quantize is not None or job.spec.train.base_compute is not None:
        return False
    stored = sum(file.stat().st_size for file in Path(job.model_path).glob("*.safetensors"))
    # most files hold 16 bits a weight
    weights = stored * (2 if precision == "fp32" else 1)
    return weights > _MOST_WEIGHTS * _device_bytes(device, here)


def _device_bytes(device: torch.device, processes_here: int) -> int:
    """All memory of a GPU; of a host, what each of its processes may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return memory_budget.free_bytes(device, processes_here)
