"""What a run will take: memory on each GPU, GPUs that are enough, downloads, and roughly how long.

The memory is `lorajob_runtime.estimate`'s. The times are rough: what they rest on is said with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorajob import quantities
from lorajob.errors import UsageError
from lorajob_runtime import estimate as estimates
from lorajob_runtime import preflight
from lorajob_runtime.architecture import Architecture
from lorajob_runtime.catalog import ModelEntry
from lorajob_runtime.estimate import GIBIBYTE, GPU_SIZES, Choice, Enough
from lorajob_runtime.exits import ConfigError, ModelError
from lorajob_runtime.fetch.sources import candidates
from lorajob_runtime.pod import CACHE_FOLDER
from lorajob_runtime.spec import ModelSpec, RunSpec

if TYPE_CHECKING:
    from lorajob.platform import Platform
    from lorajob.shipping import LocalData

BYTES_PER_TOKEN = 3.5
"""Of a dataset's file: Chinese takes three bytes a character and less than one token, English four bytes a token."""

TERAFLOPS = {24: 121, 40: 312, 48: 362, 80: 312, 96: 148, 141: 989, 192: 2250}
"""Dense bf16 of the GPU that a size stands for in GPU_SIZES, as its maker gives it; an H100 of 80 GB has 989."""

REACHED, REACHED_BY_EXPERTS = 0.4, 0.12
"""Share of that which training reaches: published LoRA runs on H100s with dense models, and with routed experts."""

NODE_BYTES_PER_SECOND, NETWORK_BYTES_PER_SECOND = 150e9, 20e9
"""At which a GPU gathers sharded weights within a node, and over several."""

NAMED_GPUS = (
    (r"b200|b100|mi300", 192),
    (r"h200", 141),
    (r"h20(?!\d)|rtx.?pro.?6000", 96),
    (r"h100|h800|a800", 80),
    (r"l40|a40(?!\d)|a6000|6000.?ada", 48),
    (r"l4(?!\d)|a10(?!\d)|a30(?!\d)|[34]090", 24),
)
"""How GPUs are called -> their size. An A100 has one of two, and says which."""

_LABEL = "nvidia.com/gpu.memory"
"""In MiB, as NVIDIA's feature discovery sets it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMemory:
    """Bytes of one GPU, None where nobody knows, and who says so."""

    size: int | None
    source: str

    @property
    def nominal(self) -> int | None:
        """The nearest of GPU_SIZES, for what it can compute."""
        return (
            None
            if self.size is None
            else min(GPU_SIZES, key=lambda gb: abs(GPU_SIZES[gb] * GIBIBYTE - (self.size or 0)))
        )


UNKNOWN = GpuMemory(size=None, source="not known")
NO_GPU = GpuMemory(size=None, source="the platform trains on CPUs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Rough speed of all GPUs together, and of one epoch where the dataset is at hand."""

    tokens_per_second: int
    epoch_tokens: int | None
    teraflops: int
    reached: float

    @property
    def epoch_seconds(self) -> int | None:
        return None if self.epoch_tokens is None else round(self.epoch_tokens / self.tokens_per_second)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """One run's plan. Without an `architecture` nothing is known of its memory."""

    spec: RunSpec
    entry: ModelEntry | None
    architecture: Architecture | None
    gpu: GpuMemory
    choice: Choice | None
    most_tokens: int | None
    """Of a micro-batch, where the GPU's memory is known and enough."""
    pace: Pace | None

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


def plan(spec: RunSpec, gpu: GpuMemory, local: LocalData | None = None) -> RunPlan:
    """The plan of a run on GPUs of that memory.

    Raises UsageError for what its model has not, and ModelError for a name that is no model's.
    """
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
    )


def check(spec: RunSpec) -> Architecture | None:
    """The model's shapes, where they are known here.

    Raises UsageError for what a run asks of it and it has not, and ModelError for a name that is no model's.
    """
    if not is_in_cache(spec.model):
        candidates(spec.model, ("modelscope", "hf"))
    try:
        shapes = preflight.architecture_of(spec.model)
        preflight.check(spec, shapes, template=preflight.template_in(preflight.folder_of(spec.model)))
    except (ConfigError, ModelError) as error:
        raise UsageError(error.message, hint=error.hint) from error
    return shapes


def is_in_cache(model: ModelSpec) -> bool:
    """Whether a model is a folder of the cluster's cache, which only pods see."""
    return (model.source or model.name).startswith(f"{CACHE_FOLDER}/")


def refuse_oversize(plan: RunPlan) -> None:
    """Raises UsageError for a run that cannot fit, unless its user wants to try it."""
    text = oversize_text(plan)
    if text is not None and not plan.spec.resources.allow_oversize:
        raise UsageError(text, hint="`lorajob plan` shows what takes how much; --allow-oversize tries it all the same")


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


def gpu_memory(spec: RunSpec, platform: Platform | None, said: str | None = None) -> GpuMemory:
    """What is known of the GPUs' memory: what the user says, else the labels of the platform's GPU type, else its name.

    A platform whose CPUs stand in for GPUs has none to know of. Raises UsageError for what is no size.
    """
    if said is not None:
        return GpuMemory(size=_size_of(said), source=f"--gpu-memory {said}")
    if platform is not None and platform.device == "cpu":
        return NO_GPU
    kind = spec.resources.gpu_type
    if kind is not None:
        labels = platform.scheduling.gpu_types.get(kind, {}) if platform is not None else {}
        if labels.get(_LABEL, "").isdigit():
            return GpuMemory(size=int(labels[_LABEL]) * 2**20, source=f"the platform's GPU type {kind}")
        for text, source in (
            (" ".join(labels.values()), f"the platform's GPU type {kind}"),
            (kind, f"GPU type {kind}"),
        ):
            if (gb := _named(text)) is not None:
                return GpuMemory(size=_nominal(gb), source=source)
    if platform is not None and platform.resources.gpu_memory is not None:
        size = int(quantities.amount(platform.resources.gpu_memory, "the platform's resources.gpuMemory"))
        return GpuMemory(size=size, source="the platform's resources.gpuMemory")
    return UNKNOWN


def _size_of(text: str) -> int:
    """`80` and `80GB` are what a GPU is called, `79Gi` and `79GiB` are exact."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|gi)?", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--gpu-memory is {text!r}: it must be like 80, 80GB or 79GiB")
    if match[2] in ("gib", "gi"):
        return round(float(match[1]) * GIBIBYTE)
    return _nominal(float(match[1]))


def _nominal(gb: float) -> int:
    """Bytes that torch finds on a GPU called so."""
    known = GPU_SIZES.get(round(gb)) if gb == round(gb) else None
    # what is called 80 GB has 80 GiB less what the driver keeps, and error correction on some
    return round((gb * 0.93 if known is None else known) * GIBIBYTE)


def _named(text: str) -> float | None:
    """GB of a GPU by its name: NVIDIA-A100-SXM4-80GB, of a part of one the part's, or one of NAMED_GPUS."""
    written = re.findall(r"(\d+(?:\.\d+)?)\s?gb", text.lower())
    if written:
        return float(written[-1])
    return next(
        (float(gb) for pattern, gb in NAMED_GPUS if re.search(rf"(?<![a-z0-9])(?:{pattern})", text.lower())), None
    )


def _pace(
    shapes: Architecture, spec: RunSpec, choice: Choice, gpu: GpuMemory, most: int | None, local: LocalData | None
) -> Pace | None:
    """From 4 (activations made again: 6) floating-point operations for every active weight and token, and from what
    gathering sharded weights twice for every micro-batch takes: the slower of the two counts."""
    if gpu.nominal is None or most is None:
        return None
    ranks = spec.resources.gpus * spec.resources.nodes
    estimate = choice.estimate
    reached = REACHED_BY_EXPERTS if shapes.has_experts else REACHED
    operations = (6 if estimate.gradient_checkpointing else 4) * shapes.active_parameters
    seconds = most * operations / (TERAFLOPS[gpu.nominal] * 1e12 * reached)
    if choice.sharding == "fsdp":
        is_within_node = choice.replicas > 1 or spec.resources.nodes == 1
        rate = NODE_BYTES_PER_SECOND if is_within_node else NETWORK_BYTES_PER_SECOND
        whole = estimates.weight_bytes(shapes, spec, estimate.precision)
        seconds = max(seconds, 2 * whole / rate)
    return Pace(
        tokens_per_second=max(1, round(ranks * most / seconds)),
        epoch_tokens=_epoch_tokens(spec, local),
        teraflops=TERAFLOPS[gpu.nominal],
        reached=reached,
    )


def _epoch_tokens(spec: RunSpec, local: LocalData | None) -> int | None:
    """Of a dataset that is at hand, from its file's size; a row counts for no more than the longest allowed."""
    if local is None or not local.rows:
        return None
    from lorajob_runtime.spec import row_slice

    chosen = len(range(local.rows)[row_slice(spec.data.rows)])
    held_out = 0 if spec.data.eval_rows is None else len(range(local.rows)[row_slice(spec.data.eval_rows)])
    rows = chosen if spec.data.rows is not None else chosen - held_out
    return round(max(0, rows) * min(spec.data.max_length, local.size_bytes / local.rows / BYTES_PER_TOKEN))


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
