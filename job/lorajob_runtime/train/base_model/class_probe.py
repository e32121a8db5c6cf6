"""Tells whether transformers has a class of its own for a model: as a program, `python -m` this module.

    {"config": path of a config.json} -> {"class": transformers' name of the model's type, or null}

A process of its own, since transformers and torch take seconds to import and hundreds of megabytes for as long as the
supervisor lives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lorajob_runtime.models import remote_code
from lorajob_runtime.system.child_process import Parent


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


def main() -> None:
    """Answers one request."""
    parent = Parent()
    config = Path(parent.request()["config"])
    parent.answer({"class": native_type(json.loads(config.read_text("utf-8")))})
    parent.leave()


if __name__ == "__main__":
    main()
