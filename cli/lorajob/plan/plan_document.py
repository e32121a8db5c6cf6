"""A run's plan as programs read it: schemas/plan.json. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lorajob.plan.run_plan import RunPlan, leaves_experts_open, sizes
from lorajob.plan.speed import Speed
from lorajob_runtime.models.gpu_sizes import GPU_SIZES
from lorajob_runtime.models.placement import EstimatedPlacement


def to_dict(plan: RunPlan) -> dict[str, object]:
    """The plan as programs read it: schemas/plan.json."""
    spec, placement, speed = plan.spec, plan.placement, plan.speed
    return {
        "apiVersion": spec.api_version,
        "kind": "Plan",
        "model": {
            "name": spec.model.name,
            "type": plan.architecture.model_type if plan.architecture else None,
            "parameters": plan.architecture.parameters if plan.architecture else None,
            "activeParameters": plan.architecture.active_parameters if plan.architecture else None,
            "trainedParameters": placement.estimate.trained_parameters if placement else None,
            "downloadBytes": plan.entry.weights_bytes if plan.entry else None,
        },
        "gpus": spec.resources.gpus,
        "nodes": spec.resources.nodes,
        "gpuMemory": {"bytes": plan.gpu.size, "source": plan.gpu.source},
        "fits": placement.fits if placement else None,
        "spread": _spread(placement, plan) if placement else None,
        "memory": _memory(placement) if placement else None,
        "hostBytes": placement.estimate.host if placement else None,
        "checkpointBytes": plan.checkpoint_bytes,
        "adapterBytes": plan.adapter_bytes,
        "steps": plan.steps,
        "storageBytes": plan.storage_bytes,
        "enough": _enough(plan),
        "pace": None if speed is None else _pace(speed),
    }


def _pace(speed: Speed) -> dict[str, object]:
    parts = {_CAMEL.get(name, name): seconds for name, seconds in speed.step.parts.items()}
    return {
        "tokensPerSecond": speed.tokens_per_second,
        "epochTokens": speed.epoch_tokens,
        "epochSeconds": speed.epoch_seconds,
        "network": speed.network,
        "step": {
            "tokens": speed.step.tokens,
            "microBatches": speed.step.micro_batches,
            "seconds": parts | {"total": speed.step.total},
        },
        "payingGpus": dict(speed.worth),
    }


_CAMEL = {"gradient_sum": "gradientSum"}


def _spread(placement: EstimatedPlacement, plan: RunPlan) -> dict[str, object]:
    return {
        "sharding": placement.estimate.sharding,
        "replicas": placement.replicas,
        "experts": placement.experts,
        "gradientCheckpointing": placement.estimate.gradient_checkpointing,
        "recomputeEvery": placement.estimate.recompute_every,
        "precision": placement.estimate.precision,
        "rowTokens": placement.estimate.tokens,
        "mostTokens": plan.most_tokens,
    }


_MEMORY_KEYS: Mapping[str, str] = {
    "gathered_layers": "gatheredLayers",
    "gathered_embedding_and_head": "gatheredEnds",
    "transient": "passing",
}
"""Part of an estimate -> its key in the document, where that is another."""


def _memory(placement: EstimatedPlacement) -> dict[str, int]:
    parts = {_MEMORY_KEYS.get(name, name): size for name, size in placement.estimate.parts()}
    return parts | {"total": placement.estimate.total}


def _enough(plan: RunPlan) -> list[dict[str, object]]:
    columns = {True: sizes(plan, True), False: sizes(plan, False)} if leaves_experts_open(plan) else {}
    if not columns and plan.placement is not None:
        columns = {plan.placement.experts: sizes(plan)}
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
                    "bytes": None if enough is None else enough.placement.estimate.total,
                }
            )
    return found
