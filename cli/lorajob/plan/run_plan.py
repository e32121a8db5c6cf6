"""What a run will take: memory on each GPU, the fewest GPUs that hold it, steps and storage. Pure.

The memory is `lorajob_runtime.models.memory_plan`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lorajob.errors import UsageError
from lorajob.plan import speed
from lorajob.plan.gpus import Gpu
from lorajob.plan.speed import KnownDataset, Speed
from lorajob_runtime.contract.catalog import ModelEntry
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.kubernetes import CACHE_FOLDER
from lorajob_runtime.contract.spec import ModelSpec, RunSpec
from lorajob_runtime.models import config_files, memory_plan, preflight
from lorajob_runtime.models import placement as placements
from lorajob_runtime.models.gpu_sizes import GIBIBYTE, GPU_SIZES
from lorajob_runtime.models.placement import EstimatedPlacement, MinimumGpus
from lorajob_runtime.models.shapes import Architecture


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """One run's plan. Without an `architecture` nothing is known of its memory."""

    spec: RunSpec
    entry: ModelEntry | None
    architecture: Architecture | None
    gpu: Gpu
    placement: EstimatedPlacement | None
    most_tokens: int | None
    """Of a micro-batch, where the GPU's memory is known and enough."""
    speed: Speed | None
    rows: int | None
    """Rows that are trained on, of a dataset on this machine."""
    excess: str | None
    """What is to be said of rows that may be longer than the model's window."""

    @property
    def gpus(self) -> int:
        return self.spec.resources.gpus * self.spec.resources.nodes

    @property
    def checkpoint_bytes(self) -> int | None:
        """Adapter and optimizer of one checkpoint."""
        if self.placement is None:
            return None
        return self.placement.estimate.trained_parameters * memory_plan.CHECKPOINT_BYTES

    @property
    def adapter_bytes(self) -> int | None:
        return (
            None if self.placement is None else self.placement.estimate.trained_parameters * memory_plan.ADAPTER_BYTES
        )

    @property
    def steps(self) -> int | None:
        """Optimizer steps, where the rows are known and each is trained as one sequence."""
        train = self.spec.train
        if self.rows is None:
            return None
        an_epoch = math.ceil(self.rows / (train.batch_size * train.gradient_accumulation * self.gpus))
        steps = math.ceil(train.epochs * an_epoch)
        return steps if train.max_steps is None else min(steps, train.max_steps)

    @property
    def storage_bytes(self) -> int | None:
        """What a run leaves in storage: checkpoints, of the older ones the adapter alone, and the final adapter."""
        if self.steps is None or self.checkpoint_bytes is None or self.adapter_bytes is None:
            return None
        checkpoints = math.ceil(self.steps / self.spec.train.save_steps)
        whole = min(checkpoints, self.spec.train.keep_checkpoints)
        return whole * self.checkpoint_bytes + (checkpoints - whole + 1) * self.adapter_bytes


def plan(spec: RunSpec, gpu: Gpu, local: KnownDataset | None = None) -> RunPlan:
    """The plan of a run on GPUs of that memory. Raises what `check` raises."""
    shapes = check(spec)
    resources = spec.resources
    placement, rate = None, None
    if shapes is not None:
        placement = placements.choose(shapes, spec, gpus=resources.gpus, nodes=resources.nodes, gpu_bytes=gpu.size)
    most = None
    if shapes is not None and placement is not None and gpu.size is not None and placement.fits:
        most = placements.most_tokens(
            shapes, spec, placement.estimate, gpus=resources.gpus, nodes=resources.nodes, gpu_bytes=gpu.size
        )
    if shapes is not None and placement is not None:
        rate = speed.estimate(shapes, spec, placement, gpu, local)
    return RunPlan(
        spec=spec,
        entry=preflight.entry_of(spec.model),
        architecture=shapes,
        gpu=gpu,
        placement=placement,
        most_tokens=most,
        speed=rate,
        rows=speed.trained_rows(spec, local),
        excess=preflight.bounds_of(spec.model).excess(spec.data.max_length),
    )


def check(spec: RunSpec) -> Architecture | None:
    """The model's shapes, where they are known here.

    Raises UsageError for what a run asks of it and it has not, and ModelError for a name or a folder that is no model.
    """
    from lorajob_runtime.fetch.sources import candidates

    if not is_in_cache(spec.model):
        candidates(spec.model)
        preflight.refuse_bare_folder(spec.model)
    shapes = preflight.architecture_of(spec.model)
    try:
        preflight.check(spec, shapes, template=config_files.chat_template(preflight.folder_of(spec.model)))
    except ConfigError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return shapes


def is_in_cache(model: ModelSpec) -> bool:
    """Whether a model is a folder of the cluster's cache, which only pods see."""
    return (model.source or model.name).startswith(f"{CACHE_FOLDER}/")


def refuse_oversize(plan: RunPlan) -> None:
    """Raises UsageError for a run that cannot fit, unless its user wants to try it."""
    text = oversize_text(plan)
    if text is not None and not plan.spec.resources.allow_oversize:
        raise UsageError(text, hint="`lorajob plan` shows what takes the memory; --allow-oversize tries it anyway")


def oversize_text(plan: RunPlan) -> str | None:
    """Why a run cannot fit, and what would do; None where it fits or nobody knows."""
    if plan.architecture is None or plan.placement is None or plan.gpu.size is None or plan.placement.fits:
        return None
    return preflight.oversize_text(
        plan.spec, plan.architecture, plan.placement, gpus=plan.gpus, gpu_bytes=plan.gpu.size
    )


def sizes(plan: RunPlan, experts: bool | None = None) -> dict[int, MinimumGpus | None]:
    """GPUs' size in GB -> the fewest of that size on which the run fits, with or without experts if that is asked."""
    spec = plan.spec
    if experts is not None:
        spec = replace(spec, lora=replace(spec.lora, experts=experts))
    if plan.architecture is None:
        return {}
    return {
        gb: placements.min_gpus(plan.architecture, spec, gpu_bytes=round(gib * GIBIBYTE))
        for gb, gib in GPU_SIZES.items()
    }


def leaves_experts_open(plan: RunPlan) -> bool:
    """Whether memory decides if routed experts get adapters."""
    if plan.architecture is None or plan.spec.lora.experts != "auto":
        return False
    return len(placements.experts_to_try(plan.architecture, plan.spec)) > 1
