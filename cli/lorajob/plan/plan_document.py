"""A run's plan as programs read it: schemas/plan.json. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lorajob.plan.run_plan import RunPlan, leaves_experts_open, sizes
from lorajob_runtime.models.memory_plan import GPU_SIZES, Choice


def to_dict(plan: RunPlan) -> dict[str, object]:
    """The plan as programs read it: schemas/plan.json."""
    spec, choice, speed = plan.spec, plan.choice, plan.speed
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
        if speed is None
        else {
            "tokensPerSecond": speed.tokens_per_second,
            "epochTokens": speed.epoch_tokens,
            "epochSeconds": speed.epoch_seconds,
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
