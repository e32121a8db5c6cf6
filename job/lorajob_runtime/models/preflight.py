"""What is checked of a run before anything is downloaded, by the catalog or by a config.json that is here already.

Standard library only. The command line asks the same questions before it submits, the supervisor before it fetches.
"""

from __future__ import annotations

import os
from pathlib import Path

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.catalog import ModelEntry
from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import FOLDERS, ModelSpec, RunSpec
from lorajob_runtime.contract.text import gibibytes
from lorajob_runtime.models import architecture as architectures
from lorajob_runtime.models import chat_families, config_files, lora_weights, memory_plan, placement, token_limits
from lorajob_runtime.models.config_files import CONFIG
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.models.placement import EstimatedPlacement
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.models.token_limits import Bounds


def entry_of(model: ModelSpec) -> ModelEntry | None:
    """The catalog's entry, by the source or by the name; None for a model that the catalog does not know."""
    return catalog.find(model.source or "") or catalog.find(model.name)


def architecture_of(model: ModelSpec) -> Architecture | None:
    """The model's shapes, as far as they are known here: from its folder, else from the catalog; None where neither is.

    Raises ModelError for a folder whose config.json cannot be read.
    """
    place = model.source or model.name
    # files from another place may be those of another model, even where the run gives them a name of the catalog
    if (entry := catalog.find(place)) is not None:
        return architectures.read(entry.config)
    folder = folder_of(model)
    path = folder / CONFIG if folder is not None else None
    return architectures.read(config_files.read_config(path)) if path is not None and path.is_file() else None


def bounds_of(model: ModelSpec) -> Bounds:
    """The model's bounds, from the same place as its shapes."""
    if (entry := catalog.find(model.source or model.name)) is not None:
        return token_limits.of_config(entry.config)
    folder = folder_of(model)
    return token_limits.UNKNOWN if folder is None else token_limits.of_folder(folder)


def folder_of(model: ModelSpec) -> Path | None:
    """The folder that a model is, whether or not it is there; None for one of a hub, of storage or of the catalog."""
    if not model.is_local:
        return None
    place = model.source or model.name
    path = Path(os.path.expanduser(place))
    # of a bare word nobody knows whether it was to be a folder or a name
    return path if place.startswith(FOLDERS) or path.is_dir() else None


_FP8_CAPABILITY = (8, 9)
"""Compute capability of the first GPUs that multiply FP8 (Ada)."""


def refuse_bare_folder(model: ModelSpec) -> None:
    """Raises ModelError for a folder that is there and has no config.json."""
    folder = folder_of(model)
    if folder is not None and folder.is_dir() and not (folder / CONFIG).is_file():
        raise ModelError(f"the model folder {folder} has no {CONFIG}: it is not a model that transformers can load")


def check(spec: RunSpec, architecture: Architecture | None, *, template: str | None = None) -> None:
    """Raises ConfigError for what a run asks of a model that has no such thing, with the field that asks for it.

    Without an architecture, or a chat template, only what the catalog and the spec say is looked at.
    """
    _check_combination(spec)
    if spec.data.thinking:
        _check_thinking(spec, template)
    if architecture is None:
        return
    name = _name(spec)
    if spec.model.quantize is not None and architecture.has_experts:
        raise ConfigError(
            f"model.quantize is {spec.model.quantize!r}: {name} is a mixture of experts, whose experts are no layers "
            "that can be quantised; leave it out",
            path="model.quantize",
        )
    if spec.train.base_compute is not None and architecture.has_experts:
        raise ConfigError(
            f"train.baseCompute is {spec.train.base_compute!r}: {name} is a mixture of experts, whose experts do not "
            "multiply in FP8; leave it out",
            path="train.baseCompute",
        )
    experts = lora_weights.wants_experts(architecture, spec.lora)
    lora_weights.adapted(architecture, spec.lora, experts=experts, model=name)


def check_memory(
    spec: RunSpec,
    architecture: Architecture,
    *,
    gpus: int,
    nodes: int,
    gpu_bytes: int | None,
    precision: Precision | None = None,
) -> EstimatedPlacement:
    """How the run is spread over its GPUs. `precision`: what auto stands for on them, where that is known.

    Raises ConfigError when it fits in no way, unless `resources.allowOversize` is set.
    """
    placed = placement.choose(architecture, spec, gpus=gpus, nodes=nodes, gpu_bytes=gpu_bytes, precision=precision)
    if placed.fits is False and gpu_bytes is not None and not spec.resources.allow_oversize:
        raise ConfigError(
            oversize_text(spec, architecture, placed, gpus=gpus * nodes, gpu_bytes=gpu_bytes),
            hint="`lorajob plan` shows what takes how much; resources.allowOversize: true tries it anyway",
        )
    return placed


def check_host_memory(spec: RunSpec, architecture: Architecture, *, host_bytes: int, nodes: int) -> int:
    """The bytes of the weights that a host is to hold. Raises ConfigError where it has less memory than that."""
    weights = memory_plan.weight_bytes(architecture, spec) // nodes
    if weights > host_bytes and not spec.resources.allow_oversize:
        raise ConfigError(
            f"{_name(spec)} does not fit: its weights alone take {gibibytes(weights)}, and without a GPU they are to "
            f"be in the host's memory of {gibibytes(host_bytes)}",
            hint="`lorajob plan` shows how many GPUs would do; resources.allowOversize: true tries it anyway",
        )
    return weights


def oversize_text(
    spec: RunSpec, architecture: Architecture, placed: EstimatedPlacement, *, gpus: int, gpu_bytes: int
) -> str:
    """Why a run does not fit, and what would do."""
    enough = placement.min_gpus(architecture, spec, gpu_bytes=gpu_bytes)
    better = "larger ones are needed" if enough is None else f"{enough.gpus * enough.nodes} of them would do"
    on = "the GPU" if gpus == 1 else f"each of {gpus} GPUs"
    return (
        f"{_name(spec)} does not fit: training takes {gibibytes(placed.estimate.total)} on {on}, "
        f"which {'has' if gpus == 1 else 'have'} {gibibytes(gpu_bytes)}; {better}"
    )


def _check_thinking(spec: RunSpec, template: str | None) -> None:
    entry = entry_of(spec.model)
    if template is not None and not chat_families.may_think(template):
        raise chat_families.refuse_thinking(_name(spec))
    if template is None and entry is not None and entry.thinking == "none":
        raise chat_families.refuse_thinking(entry.name)


def _name(spec: RunSpec) -> str:
    entry = catalog.find(spec.model.source or spec.model.name)
    return entry.name if entry is not None else (spec.model.source or spec.model.name)


def _check_combination(spec: RunSpec) -> None:
    quantize = spec.model.quantize
    if quantize is not None and spec.train.sharding == "fsdp":
        raise ConfigError(
            f"model.quantize is {quantize!r} and train.sharding 'fsdp': quantised weights are whole on every GPU, "
            "so one of the two must be left out",
            path="model.quantize",
        )
    _check_base_compute(spec)


def check_fp8(capability: tuple[int, int] | None) -> None:
    """Raises ConfigError for a GPU of a compute capability, or a CPU (None), that does not multiply FP8."""
    if capability is None or capability < _FP8_CAPABILITY:
        device = "a CPU" if capability is None else f"a GPU of compute capability {capability[0]}.{capability[1]}"
        raise ConfigError(
            f"train.baseCompute is 'fp8': {device} does not multiply FP8, GPUs of "
            f"{'.'.join(map(str, _FP8_CAPABILITY))} or newer do (Ada, Hopper, Blackwell)",
            hint="leave train.baseCompute out",
            path="train.baseCompute",
        )


def _check_base_compute(spec: RunSpec) -> None:
    """Raises ConfigError for products in FP8 beside what they cannot be beside."""
    wanted = spec.train.base_compute
    others = {
        f"model.quantize {spec.model.quantize!r}": spec.model.quantize is not None,
        "train.precision 'fp32'": spec.train.precision == "fp32",
        "train.sharding 'fsdp'": spec.train.sharding == "fsdp",
    }
    other = next((what for what, is_there in others.items() if is_there), None)
    if wanted is not None and other is not None:
        raise ConfigError(
            f"train.baseCompute is {wanted!r} and {other}: FP8 is made of whole weights in bf16, so one of the two "
            "must be left out",
            path="train.baseCompute",
        )
