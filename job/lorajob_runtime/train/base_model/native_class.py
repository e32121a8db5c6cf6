"""Finds the class of transformers' own for a model."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lorajob_runtime.models import remote_code


def native_type(stored: dict[str, Any]) -> str | None:
    """transformers' own name of the causal language model that a config.json says; None when it has no such class.

    The class it names outranks its model_type: a repository with code of its own can have called that anything.
    """
    named = (stored.get("architectures") or [None])[0]
    types: list[str] = [name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == named]
    declared: str | None = stored.get("model_type")
    if types:
        return declared if declared in types else types[0]
    brings_class = remote_code.reference(stored, "AutoModelForCausalLM") is not None
    if brings_class and named is not None and not hasattr(transformers, str(named)):
        # a type of transformers' own says nothing of a class that is not
        return None
    return declared if declared in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None
