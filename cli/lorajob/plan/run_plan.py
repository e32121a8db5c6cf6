"""What a run will take: memory on each GPU, GPUs that are enough, downloads, and roughly how long.

The memory is `lorajob_runtime.models.memory_plan`'s. The times are rough: what they rest on is said with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from lorajob.errors import UsageError
from lorajob.plan.gpus import Gpu
from lorajob_runtime.contract.catalog import ModelEntry
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.kubernetes import CACHE_FOLDER
from lorajob_runtime.contract.spec import ModelSpec, RunSpec
from lorajob_runtime.data.rows.select import select
from lorajob_runtime.fetch.sources import candidates
from lorajob_runtime.models import memory_plan as estimates
from lorajob_runtime.models import preflight
from lorajob_runtime.models.architecture import Architecture
from lorajob_runtime.models.memory_plan import GIBIBYTE, GPU_SIZES, Choice, Enough

BYTES_PER_TOKEN = 3.5
"""Of a dataset's file: Chinese takes three bytes a character and less than one token, English four bytes a token."""

REACHED, REACHED_BY_EXPERTS = 0.4, 0.12
"""Share of that which training reaches: published LoRA runs on H100s with dense models, and with routed experts."""

NODE_BYTES_PER_SECOND, NETWORK_BYTES_PER_SECOND = 150e9, 20e9
"""At which a GPU gathers sharded weights within a node, and over several."""


class KnownDataset(Protocol):
    """What a plan asks of a dataset at hand: its rows, and its bytes unpacked; None where nobody counted them."""

    @property
    def rows(self) -> int | None: ...

    @property
    def text_bytes(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Rough speed of all GPUs together, and of one epoch where the dataset is at hand."""

    tokens_per_second: int
    epoch_tokens: int | None
    teraflops: int
    reached: float
    gathered_per_second: float | None
    """Bytes a second, where gathering sharded weights takes longer than computing with them."""

    @property
    def epoch_seconds(self) -> int | None:
        return None if self.epoch_tokens is None else round(self.epoch_tokens / self.tokens_per_second)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """One run's plan. Without an `architecture` nothing is known of its memory."""

    spec: RunSpec
    entry: ModelEntry | None
    architecture: Architecture | None
    gpu: Gpu
    choice: Choice | None
    most_tokens: int | None
    """Of a micro-batch, where the GPU's memory is known and enough."""
    pace: Pace | None
    rows: int | None
    """Rows that are trained on, of a dataset that is at hand."""
    excess: str | None
    """What is to be said of rows that may be longer than the model's window."""

    @property
    def gpus(self) -> int:
        return self.spec.resources.gpus * self.spec.resources.nodes

    @property
    def checkpoint_bytes(self) -> int | None:
        """Adapter and optimizer of one checkpoint."""
        if self.choice is None:
            return None
        return self.choice.estimate.trained_parameters * (estimates.ADAPTER_BYTES + estimates.OPTIMIZER_BYTES)

    @property
    def adapter_bytes(self) -> int | None:
        return None if self.choice is None else self.choice.estimate.trained_parameters * estimates.ADAPTER_BYTES

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
    choice = None
    if shapes is not None:
        choice = estimates.choose(shapes, spec, gpus=resources.gpus, nodes=resources.nodes, gpu_bytes=gpu.size)
    most = None
    if shapes is not None and choice is not None and gpu.size is not None and choice.fits:
        most = estimates.most_tokens(
            shapes, spec, choice.estimate, gpus=resources.gpus, nodes=resources.nodes, gpu_bytes=gpu.size
        )
    return RunPlan(
        spec=spec,
        entry=preflight.entry_of(spec.model),
        architecture=shapes,
        gpu=gpu,
        choice=choice,
        most_tokens=most,
        pace=_pace(shapes, spec, choice, gpu, most, local) if shapes is not None and choice is not None else None,
        rows=_trained_rows(spec, local),
        excess=preflight.bounds_of(spec.model).excess(spec.data.max_length),
    )


def check(spec: RunSpec) -> Architecture | None:
    """The model's shapes, where they are known here.

    Raises UsageError for what a run asks of it and it has not, and ModelError for a name or a folder that is no model.
    """
    if not is_in_cache(spec.model):
        candidates(spec.model, ("modelscope", "hf"))
        preflight.refuse_bare_folder(spec.model)
    shapes = preflight.architecture_of(spec.model)
    try:
        preflight.check(spec, shapes, template=preflight.template_in(preflight.folder_of(spec.model)))
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
        raise UsageError(text, hint="`lorajob plan` shows what takes how much; --allow-oversize tries it anyway")


def oversize_text(plan: RunPlan) -> str | None:
    """Why a run cannot fit, and what would do; None where it fits or nobody knows."""
    if plan.architecture is None or plan.choice is None or plan.gpu.size is None or plan.choice.fits:
        return None
    return preflight.oversize_text(plan.spec, plan.architecture, plan.choice, gpus=plan.gpus, gpu_bytes=plan.gpu.size)


def sizes(plan: RunPlan, experts: bool | None = None) -> dict[int, Enough | None]:
    """GPUs' size in GB -> the fewest of that size on which the run fits, with or without experts if that is asked."""
    spec = plan.spec
    if experts is not None:
        spec = replace(spec, lora=replace(spec.lora, experts=experts))
    if plan.architecture is None:
        return {}
    return {
        gb: estimates.smallest(plan.architecture, spec, gpu_bytes=round(gib * GIBIBYTE))
        for gb, gib in GPU_SIZES.items()
    }


def leaves_experts_open(plan: RunPlan) -> bool:
    """Whether memory decides if routed experts get adapters."""
    if plan.architecture is None or plan.spec.lora.experts != "auto":
        return False
    return len(estimates.experts_to_try(plan.architecture, plan.spec)) > 1


def _pace(
    shapes: Architecture, spec: RunSpec, choice: Choice, gpu: Gpu, most: int | None, local: KnownDataset | None
) -> Pace | None:
    """From 4 (activations made again: 6) floating-point operations for every active weight and token, and from what
    gathering sharded weights twice for every micro-batch takes: the slower of the two counts.

    A micro-batch is as large as fits, or all that a GPU has of a step of the dataset where that is less."""
    if gpu.teraflops is None or most is None:
        return None
    ranks = spec.resources.gpus * spec.resources.nodes
    rows, row_tokens = _trained_rows(spec, local), _row_tokens(spec, local)
    step_rows = spec.train.batch_size * spec.train.gradient_accumulation
    tokens = most if row_tokens is None else min(most, max(1, round(step_rows * row_tokens)))
    estimate = choice.estimate
    reached = REACHED_BY_EXPERTS if shapes.has_experts else REACHED
    operations = (6 if estimate.gradient_checkpointing else 4) * shapes.active_parameters
    seconds, gathered_per_second = tokens * operations / (gpu.teraflops * 1e12 * reached), None
    if choice.sharding == "fsdp":
        is_within_node = choice.replicas > 1 or spec.resources.nodes == 1
        rate = NODE_BYTES_PER_SECOND if is_within_node else NETWORK_BYTES_PER_SECOND
        gathering = 2 * estimates.weight_bytes(shapes, spec, estimate.precision) / rate
        if gathering > seconds:
            seconds, gathered_per_second = gathering, rate
    return Pace(
        tokens_per_second=max(1, round(ranks * tokens / seconds)),
        epoch_tokens=None if rows is None or row_tokens is None else round(rows * row_tokens),
        teraflops=gpu.teraflops,
        reached=reached,
        gathered_per_second=gathered_per_second,
    )


def _trained_rows(spec: RunSpec, local: KnownDataset | None) -> int | None:
    if local is None or not local.rows:
        return None
    return len(select(local.rows, spec.data.rows, spec.data.eval_rows).train)


def _row_tokens(spec: RunSpec, local: KnownDataset | None) -> float | None:
    """Of a mean row of a dataset that is at hand, from its file's size; no more than the longest allowed."""
    if local is None or not local.rows or local.text_bytes is None:
        return None
    return min(spec.data.max_length, local.text_bytes / local.rows / BYTES_PER_TOKEN)


def to_dict(plan: RunPlan) -> dict[str, object]:
    """The plan as programs read it: schemas/plan.json."""
    spec, choice, pace = plan.spec, plan.choice, plan.pace
    return {
        "apiVersion": spec.api_version,
        "kind": "Plan",
        "model": {
            "name": spec.model.name,
            "type": plan.architecture.model_type if plan.architecture else None,
            "parameters": plan.architecture.parameters if plan.architecture else None,
            "activeParameters": plan.architecture.active_parameters if plan.architecture else None,
            "trainedParameters": choice.estimate.trained_parameters if choice else None,
            "downloadBytes": plan.entry.weights_bytes if plan.entry else None,
        },
        "gpus": spec.resources.gpus,
        "nodes": spec.resources.nodes,
        "gpuMemory": {"bytes": plan.gpu.size, "source": plan.gpu.source},
        "fits": choice.fits if choice else None,
        "spread": _spread(choice, plan) if choice else None,
        "memory": _memory(choice) if choice else None,
        "hostBytes": choice.estimate.host if choice else None,
        "checkpointBytes": plan.checkpoint_bytes,
        "adapterBytes": plan.adapter_bytes,
        "steps": plan.steps,
        "storageBytes": plan.storage_bytes,
        "enough": _enough(plan),
        "pace": None
        if pace is None
        else {
            "tokensPerSecond": pace.tokens_per_second,
            "epochTokens": pace.epoch_tokens,
            "epochSeconds": pace.epoch_seconds,
        },
    }


def _spread(choice: Choice, plan: RunPlan) -> dict[str, object]:
    return {
        "sharding": choice.sharding,
        "replicas": choice.replicas,
        "experts": choice.experts,
        "gradientCheckpointing": choice.estimate.gradient_checkpointing,
        "precision": choice.estimate.precision,
        "rowTokens": choice.estimate.tokens,
        "mostTokens": plan.most_tokens,
    }


def _memory(choice: Choice) -> dict[str, int]:
    titles: Mapping[str, str] = {"gathered_layers": "gatheredLayers", "gathered_ends": "gatheredEnds"}
    parts = {titles.get(name, name): size for name, size in choice.estimate.parts()}
    return parts | {"total": choice.estimate.total}


def _enough(plan: RunPlan) -> list[dict[str, object]]:
    columns = {True: sizes(plan, True), False: sizes(plan, False)} if leaves_experts_open(plan) else {}
    if not columns and plan.choice is not None:
        columns = {plan.choice.experts: sizes(plan)}
    found: list[dict[str, object]] = []
    for gb in GPU_SIZES:
        for experts, by_size in columns.items():
            enough = by_size.get(gb)
            found.append(
                {
                    "gpuGigabytes": gb,
                    "experts": experts,
                    "gpus": None if enough is None else enough.gpus * enough.nodes,
                    "nodes": None if enough is None else enough.nodes,
                    "bytes": None if enough is None else enough.choice.estimate.total,
                }
            )
    return found
