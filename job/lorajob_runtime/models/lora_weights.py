"""Which of a model's weights get an adapter, and how many parameters are trained, from the model's shapes alone."""

from __future__ import annotations

import functools

from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import lora_targets
from lorajob_runtime.models.shapes import Architecture, Weight


@functools.lru_cache(maxsize=16)
def adapted(
    architecture: Architecture, lora: LoraSpec, *, experts: bool, model: str = "this model"
) -> tuple[Weight, ...]:
    """What gets an adapter. `experts` is what was decided for `lora.experts`.

    Raises ConfigError, in which `model` is what the model is called, for what it does not have.
    """
    return tuple(lora_targets.select(architecture.weights(), lora, experts=experts, model=model))


@functools.lru_cache(maxsize=16)
def adapter_parameters(architecture: Architecture, lora: LoraSpec, *, experts: bool) -> int:
    """How many parameters are trained. Raises ConfigError for targets that the model does not have."""
    return sum(each.matrix.adapter_parameters(lora.rank) for each in adapted(architecture, lora, experts=experts))


@functools.lru_cache(maxsize=16)
def wants_experts(architecture: Architecture, lora: LoraSpec) -> bool:
    """Whether routed experts are to get adapters where memory allows it: asked for, or as the recipe has it."""
    return lora_targets.asks_for_experts(architecture.weights(), lora)
