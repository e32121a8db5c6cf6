"""One call of `lorajob artifacts convert`: finds the adapter that is meant, and its base model's type."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime import fetch
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.models import architecture, config_files, preflight
from lorajob_runtime.publish import adapter_lookup, expert_layouts
from lorajob_runtime.publish.expert_layouts import Converted, Layout
from lorajob_runtime.system.environment import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What was written, and what to load it with: the base by the name that PEFT has for it, and its model type.

    `model_type` is None where it is not known and nothing depended on it.
    """

    converted: Converted
    base: str | None
    model_type: str | None


def convert(
    text: str,
    output: Path,
    *,
    layout_name: Layout,
    storage: str,
    environment: Environment,
    notify: Callable[[str], None],
) -> Conversion:
    """Writes the adapter of RUN or DIR to the folder `output` in another layout.

    Of a base model that is on a hub, files other than weights are fetched when only they tell its type. Raises what
    `target.find`, `per_expert.convert` and fetching raise.
    """
    expert_layouts.refuse_existing(output)
    with adapter_lookup.find(text, storage=storage, environment=environment) as found:
        model_type = _known_type(found.base)
        if model_type is None and expert_layouts.has_stacks(found.adapter):
            model_type = _told_type(found.base, environment, notify)
        converted = expert_layouts.convert(found.adapter, output, layout_name=layout_name, model_type=model_type)
    config = json.loads((output / layout.ADAPTER_CONFIG).read_bytes())
    return Conversion(converted=converted, base=config.get("base_model_name_or_path"), model_type=model_type)


def _known_type(model: ModelSpec) -> str | None:
    known = preflight.architecture_of(model)
    return known.model_type if known is not None else None


def _told_type(model: ModelSpec, environment: Environment, notify: Callable[[str], None]) -> str | None:
    """What the model's own config.json says."""
    path = preflight.folder_of(model)
    if path is None:
        path = fetch.fetch_tokenizer(model, environment=environment, notify=notify).path
    config = config_files.read_config(path / config_files.CONFIG)
    known = architecture.read(config)
    return known.model_type if known is not None else config.get("model_type")
