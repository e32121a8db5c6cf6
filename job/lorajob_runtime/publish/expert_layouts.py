"""An adapter in the layout of the hubs' own files: every expert's gate, up and down by itself, as vLLM loads them.

PEFT keeps one A and one B for the whole stack of experts, with gate and up in one. Here each expert's parts are cut
out of them; gate and up share their A, whose numbers are written twice. Plain PEFT joins them again while it loads, and
gives the same answers.

Names are those of vLLM's loader, version 0.33: `from_local_checkpoint` in vllm/lora/lora_model.py looks for what
follows `.experts` in the names that `get_expert_mapping` of the experts lists, and for the last part of every other
name among the model's linear layers. `pack_moe` in vllm/lora/lora_weights.py then wants all three of every expert.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import ConfigError, ModelError, StorageError
from lorajob_runtime.models import families
from lorajob_runtime.models.families.family import ExpertNames
from lorajob_runtime.models.shapes import EXPERT_STACKS
from lorajob_runtime.system import atomic

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["vllm", "per-expert"]

# the wrapper of gate_up_proj lies inside that of down_proj, where both have an adapter
_STACK = re.compile(r"^(?P<block>.*\.mlp\.experts)(?P<inner>\.base_layer)?\.lora_(?P<factor>[AB])\.weight$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written: of how many layers the experts were taken apart, into how many each, and of which rank."""

    layers: int
    experts: int
    rank: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """The factors of one weight: A [experts, rank, in] and B [experts, out, rank]."""

    a: Tensor
    b: Tensor


@dataclass(kw_only=True, slots=True)
class _Block:
    """The adapters of one layer's experts."""

    gate_up: _Pair | None = None
    down: _Pair | None = None


def has_stacks(adapter: Path) -> bool:
    """Whether an adapter has experts in PEFT's stacks, which alone look different in another layout.

    Raises ModelError for weights that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / layout.ADAPTER_WEIGHTS, framework="pt") as file:
            return any(_STACK.match(name) for name in file.keys())  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{adapter / layout.ADAPTER_WEIGHTS} cannot be read: {error}") from error


def refuse_existing(output: Path) -> None:
    """Raises ConfigError for an output that is there already."""
    if output.exists():
        raise ConfigError(f"{output} exists already, and a conversion replaces nothing", hint="name a new folder")


def convert(adapter: Path, output: Path, *, layout_name: Layout, model_type: str | None) -> Converted:
    """Writes a copy of the adapter's folder with its experts taken apart.

    `model_type` is that of the base model's config.json. Raises ConfigError for an output that is there already, for
    experts of a model type whose names are not known, and for what vLLM would refuse; ModelError for an adapter that
    cannot be read.
    """
    from safetensors.torch import save_file

    refuse_existing(output)
    config, weights = _read(adapter)
    names = families.expert_names(model_type)
    stacks = {name: weights.pop(name) for name in list(weights) if _STACK.match(name)}
    if stacks:
        _check_stacks(config, adapter)
        if names is None:
            raise ConfigError(
                f"the adapter is of a model of type {model_type}, whose experts' names are not known: "
                f"it must be one of {', '.join(families.with_experts())}"
            )
    blocks = _blocks(stacks, config)
    stacks.clear()
    parts = weights if names is None else {_hub_name(name, names): weight for name, weight in weights.items()}
    if names is not None and layout_name == "vllm":
        _refuse_unknown(parts, names, str(model_type))
        # its loader wants all three of every expert that has any
        for block in blocks.values():
            _fill(block)
    experts = {len(pair.a) for block in blocks.values() for pair in (block.gate_up, block.down) if pair is not None}
    converted = Converted(layers=len(blocks), experts=max(experts, default=0), rank=int(config["r"]))
    if names is not None and blocks:
        config = _config(config, blocks, names)
        while blocks:
            # one at a time: the adapters of all experts are gigabytes
            prefix, block = blocks.popitem()
            parts |= _taken_apart(_hub_name(prefix, names), block, names)
    _write(adapter, output, parts, config, save_file)
    return converted


def _read(adapter: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's configuration and weights. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((adapter / layout.ADAPTER_CONFIG).read_bytes())
        weights = load_file(adapter / layout.ADAPTER_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the adapter in {adapter} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("r"), int) or config["r"] < 1:
        raise ModelError(
            f"{adapter / layout.ADAPTER_CONFIG} is not the configuration of a LoRA adapter: it has no rank r"
        )
    return config, weights


def _check_stacks(config: dict[str, Any], adapter: Path) -> None:
    """Raises ConfigError for what PEFT can do and lorajob does not, which would change what the stacks mean."""
    odd = ["rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "lora_bias"]
    if isinstance(config.get("target_modules"), str):
        odd.append("target_modules")
    for field in (name for name in odd if config.get(name)):
        raise ConfigError(
            f"{adapter / layout.ADAPTER_CONFIG} has {field} {json.dumps(config[field])}: experts of such an adapter "
            "cannot be taken apart"
        )


def _refuse_unknown(parts: Iterable[str], names: ExpertNames, model_type: str) -> None:
    """Raises ConfigError for an adapter of a layer that vLLM's model has not, which refuses the whole file then."""
    for name in parts:
        module = re.sub(r"\.lora_(embedding_)?[AB](\.weight)?$", "", name)
        last = module.rpartition(".")[2]
        if last not in names.vllm_linear and ".experts." not in module:
            raise ConfigError(
                f"--layout is 'vllm': of a {model_type} vLLM takes no adapter of {last}; "
                f"it takes those of {', '.join(sorted(names.vllm_linear))} and of the experts"
            )


def _write(
    adapter: Path, output: Path, parts: dict[str, Tensor], config: dict[str, Any], save_file: Callable[..., None]
) -> None:
    """All of the folder or nothing. Raises StorageError when the disk does not take it."""
    from safetensors import SafetensorError

    left_out = (layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG, layout.MANIFEST, *layout.RESUME_ONLY)
    try:
        with atomic.replacing_folder(output, may_exist=False) as draft:
            for path in adapter.iterdir():
                if path.is_file() and path.name not in left_out and not path.name.startswith("."):
                    shutil.copyfile(path, draft / path.name)
            save_file(parts, draft / layout.ADAPTER_WEIGHTS, metadata={"format": "pt"})
            (draft / layout.ADAPTER_WEIGHTS).chmod(0o644)
            (draft / layout.ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        raise StorageError(f"{output} cannot be written: {error}") from error


def _blocks(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, _Block]:
    """The adapters of experts by the name of their block."""
    targets = [f".{name}" for name in config.get("target_parameters") or ()]
    rank = int(config["r"])
    blocks: dict[str, _Block] = {}
    for name, weight in weights.items():
        match = _STACK.match(name)
        if match is None or match["factor"] == "B":
            continue
        other = weights.get(name.replace(".lora_A.", ".lora_B."))
        if other is None:
            raise ModelError(f"the adapter has {name} and no lora_B with it: it is not complete")
        pair = _pair(weight, other, rank)
        block = blocks.setdefault(match["block"], _Block())
        alone = f"{match['block']}.base_layer.lora_A.weight" not in weights
        if match["inner"] or (alone and any(f"{match['block']}.gate_up_proj".endswith(each) for each in targets)):
            block.gate_up = pair
        else:
            block.down = pair
    return blocks


def _pair(a: Tensor, b: Tensor, rank: int) -> _Pair:
    """From PEFT's A [experts * rank, in] and B [out, rank * experts]. Raises ModelError for another rank."""
    experts, surplus = divmod(a.shape[0], rank)
    if surplus:
        raise ModelError(f"an adapter of experts has {a.shape[0]} rows, which is not a multiple of its rank {rank}")
    return _Pair(a=a.reshape(experts, rank, -1), b=b.reshape(-1, rank, experts).permute(2, 0, 1))


def _fill(block: _Block) -> None:
    """Gives a block with an adapter of only one of its weights one of the other that does nothing."""
    have = block.gate_up or block.down
    if have is None or (block.gate_up and block.down):
        return
    experts, rank, inputs = have.a.shape
    outputs = have.b.shape[1]
    if block.down is None:
        a, b = (experts, rank, outputs // 2), (experts, inputs, rank)
        block.down = _Pair(a=have.a.new_zeros(a), b=have.b.new_zeros(b))
    else:
        a, b = (experts, rank, outputs), (experts, 2 * inputs, rank)
        block.gate_up = _Pair(a=have.a.new_zeros(a), b=have.b.new_zeros(b))


def _taken_apart(prefix: str, block: _Block, names: ExpertNames) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {}
    if block.gate_up is not None:
        # B's rows are gate's, then up's
        gate, up = block.gate_up.b.chunk(2, dim=1)
        parts |= _named(prefix, names.gate, block.gate_up.a, gate) | _named(prefix, names.up, block.gate_up.a, up)
    if block.down is not None:
        parts |= _named(prefix, names.down, block.down.a, block.down.b)
    return parts


def _named(prefix: str, projection: str, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    return {
        # copies: a file cannot hold a tensor under two names
        f"{prefix}.{expert}.{projection}.lora_{factor}.weight": weight.clone().contiguous()
        for factor, stack in (("A", a), ("B", b))
        for expert, weight in enumerate(stack)
    }


def _hub_name(name: str, names: ExpertNames) -> str:
    return name.replace(".mlp.", f".{names.block}.")


def _config(config: dict[str, Any], blocks: dict[str, _Block], names: ExpertNames) -> dict[str, Any]:
    """PEFT's configuration with experts named as modules, which it takes for those of the stack when it loads them."""
    modules = set(config.get("target_modules") or ())
    if any(block.gate_up for block in blocks.values()):
        modules |= {names.gate, names.up}
    if any(block.down for block in blocks.values()):
        modules.add(names.down)
    # those of linear layers end in .weight
    parameters = (
        name for name in config.get("target_parameters") or () if name.rpartition(".")[2] not in EXPERT_STACKS
    )
    return config | {"target_modules": sorted(modules), "target_parameters": sorted(parameters) or None}
