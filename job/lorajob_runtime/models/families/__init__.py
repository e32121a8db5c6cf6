"""The model families that lorajob knows, one module each; a new one is its module and one line of ALL.

What needs torch or transformers stays in the rooms that use it and is told by a family's facts what to do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lorajob_runtime.models.families import (
    glm4_moe,
    hunyuan,
    llama,
    minimax_m2,
    mistral,
    qwen2,
    qwen3,
    smollm2,
)
from lorajob_runtime.models.families.family import ExpertNames, Family, ModelType
from lorajob_runtime.models.shapes import EXPERT_STACKS

ALL: tuple[Family, ...] = (
    glm4_moe.FAMILY,
    minimax_m2.FAMILY,
    hunyuan.FAMILY,
    qwen3.FAMILY,
    qwen2.FAMILY,
    smollm2.FAMILY,
    llama.FAMILY,
    mistral.FAMILY,
)
"""In the order in which their chat templates are looked for."""


def model_types() -> dict[str, ModelType]:
    """Every known model type by its name."""
    return {each.name: each for family in ALL for each in family.model_types}


def of_config(config: Mapping[str, Any]) -> ModelType | None:
    """The type of the model with this config.json; None for one that is not known, or that brings its own class.

    The class that it names outranks its model_type: a repository with code of its own may call that anything.
    """
    named = (config.get("architectures") or [""])[0]
    known = model_types()
    by_class = next((each for each in known.values() if each.class_name == named), None)
    if by_class is None and named and (config.get("auto_map") or {}).get("AutoModelForCausalLM"):
        return None
    return by_class or known.get(str(config.get("model_type")))


def renamed_fields(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The values that a config.json has under the family's own names only, by transformers' names for them."""
    known = model_types().get(model_type)
    names = known.renamed_fields if known is not None else {}
    return {name: config[own] for name, own in names.items() if config.get(name) is None and config.get(own)}


def with_experts() -> list[str]:
    """The model types whose experts' names are known."""
    return [name for name, known in model_types().items() if known.experts is not None]


def expert_names(model_type: str | None) -> ExpertNames | None:
    """What the routed experts of a model type are called; None for a type that is not known or has none."""
    known = model_types().get(model_type or "")
    return known.experts if known is not None else None


def expert_stacks() -> Mapping[str, str]:
    """Every name of an expert's projections, transformers' or the hubs' -> the stack that holds the projection."""
    return _expert_stacks(ALL)


@functools.lru_cache(maxsize=2)
def _expert_stacks(families: tuple[Family, ...]) -> Mapping[str, str]:
    gate_up, down = EXPERT_STACKS
    found = {gate_up: gate_up, down: down}
    for names in _experts(families):
        found |= {names.gate: gate_up, names.up: gate_up, names.down: down}
    return found


def gate_and_up() -> dict[str, str]:
    """The gate of experts -> their up, and the other way round: the two are one weight."""
    found: dict[str, str] = {}
    for names in _experts(ALL):
        found |= {names.gate: names.up, names.up: names.gate}
    return found


def router_names() -> frozenset[str]:
    """What transformers' blocks of routed experts call their router."""
    return frozenset(names.router for names in _experts(ALL))


def _experts(families: tuple[Family, ...]) -> list[ExpertNames]:
    types = (each for family in families for each in family.model_types)
    return [each.experts for each in types if each.experts is not None]
