"""The classes that a repository brings for transformers, as its configurations name them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.errors import ModelError


def reference(config: Mapping[str, Any], auto_class: str) -> str | None:
    """`own.OwnConfig`, the class for AutoConfig or the like in a configuration's `auto_map`; None where there is none.

    Raises ModelError for one in yet another repository: transformers would fetch its newest state.
    """
    named = (config.get("auto_map") or {}).get(auto_class)
    # a tokenizer has two: the slow class, and the fast one or null
    found = next((str(each) for each in (named if isinstance(named, list) else [named]) if each), None)
    if found is not None and "--" in found:
        raise ModelError(
            f"the code for {auto_class} is {found}, in another repository, and model.revision says nothing of that one",
            hint="copy the model to a folder with that code beside it, and name the class without the repository there",
        )
    return found


def file_of(reference: str) -> str:
    """`own.OwnConfig` -> own.py."""
    return f"{reference.split('.')[0]}.py"


def unsupported_model(name: str, config: Mapping[str, Any]) -> ModelError:
    """What is wrong with a model that transformers has no class for, and whose repository's code is not trusted."""
    if reference(config, "AutoModelForCausalLM") is None:
        return ModelError(
            f"{name}: transformers has no causal language model of type {config.get('model_type')!r}",
            hint="take a model of a type that it has one for",
        )
    kind = (config.get("architectures") or [None])[0] or config.get("model_type")
    return ModelError(
        f"{name}: transformers has no class for {kind!r}, and its repository's code may not run",
        hint="model.trustRemoteCode runs that code, at the revision that you have read",
    )
