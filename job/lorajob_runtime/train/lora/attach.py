"""Attaches the adapter with PEFT and reports what got one. What was asked for and got none ends the run."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import lora_targets
from lorajob_runtime.train.lora import inventory
from lorajob_runtime.train.lora.inventory import Target
from lorajob_runtime.train.parallel import sharding


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCount:
    """How many weights of one part of the model got an adapter, and how many numbers those have."""

    targets: int
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReport:
    """What got LoRA: by name (q_proj) how many, by part of the model (attention), and how many numbers train of all.

    `without_dropout` are the parts whose adapters train without the dropout that was asked for.
    """

    targets: dict[str, int]
    groups: dict[str, GroupCount]
    without_dropout: tuple[str, ...]
    trained_parameters: int
    all_parameters: int


def attach(
    model: PreTrainedModel, lora: LoraSpec, *, seed: int, experts: bool, warn: Callable[[str], None] = warnings.warn
) -> nn.Module:
    """The PEFT model around `model`, its adapter in fp32, the same for the same seed.

    `experts`: whether routed experts get one, if the spec asks for them. PEFT keeps no dropout beside adapters of
    parameters: its configuration then says 0, and what can have dropout gets it here. `warn` gets what PEFT warns of.
    Raises ConfigError for a target that the model does not have, and when PEFT attached something else than chosen.
    """
    candidates = inventory.inventory(model)
    chosen = lora_targets.select(candidates, lora, experts=experts, model=type(model).__name__)
    modules, parameters = inventory.peft_names(chosen, candidates)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0 if parameters else lora.dropout,
        target_modules=modules,
        target_parameters=parameters or None,
        task_type="CAUSAL_LM",
    )
    with sharding.whole_shapes(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        peft_model: nn.Module = get_peft_model(model, config)
    for warning in said:
        if warning.category is UserWarning:
            warn(f"PEFT: {' '.join(str(warning.message).split())}")
    _check(chosen, peft_model)
    if parameters and lora.dropout:
        for target, layer in _adapted(peft_model):
            if target.linear:
                layer.lora_dropout["default"] = nn.Dropout(lora.dropout)
    return peft_model


def _adapted(model: nn.Module) -> Iterator[tuple[Target, Any]]:
    """Every adapted weight of a PEFT model, and PEFT's layer around it."""
    names = {name: _plain(name) for name, _ in model.named_modules()}
    blocks = inventory.blocks(names.values())
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and module.lora_A:
            parameter = module.parameter_name if isinstance(module, ParamWrapper) else None
            path = names[name]
            yield (
                Target(
                    group=inventory.group_of(path, blocks),
                    path=path,
                    parameter=parameter,
                    linear=isinstance(module.get_base_layer(), nn.Linear),
                ),
                module,
            )


def _plain(name: str) -> str:
    """A module's name in the model without its adapter."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _check(chosen: list[Target], model: nn.Module) -> None:
    """Raises ConfigError unless exactly the chosen weights have an adapter."""
    wanted, got = {target.key for target in chosen}, {target.key for target, _ in _adapted(model)}
    if missing := sorted(wanted - got):
        raise ConfigError(
            f"lora.targets: PEFT attached no adapter to {missing[0]} ({len(missing)} weights in all)",
            path="lora.targets",
        )
    if surplus := sorted(got - wanted):
        raise ConfigError(
            f"lora.targets: PEFT attached an adapter to {surplus[0]}, which nothing asked for", path="lora.targets"
        )


def report(model: nn.Module, *, dropout: float) -> TargetReport:
    """Counts what got an adapter. `dropout` is what was asked for."""
    adapted = list(_adapted(model))
    groups: dict[str, GroupCount] = {}
    for group in inventory.GROUPS:
        layers = [layer for target, layer in adapted if target.group == group]
        if layers:
            parameters = sum(_numbers(layer) for layer in layers)
            groups[group] = GroupCount(targets=len(layers), parameters=parameters)
    without = {target.group for target, _ in adapted if not target.linear} if dropout else set()
    return TargetReport(
        targets=dict(sorted(Counter(target.shown for target, _ in adapted).items())),
        groups=groups,
        without_dropout=tuple(group for group in inventory.GROUPS if group in without),
        trained_parameters=sum(item.numel() for item in model.parameters() if item.requires_grad),
        all_parameters=sum(_size(item) for item in model.parameters()),
    )


def _size(parameter: nn.Parameter) -> int:
    """How many numbers a parameter stands for: bitsandbytes packs several of them into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else math.prod(packed.shape)


def _numbers(layer: Any) -> int:
    return sum(item.numel() for part in (layer.lora_A, layer.lora_B) for item in part.parameters())


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapter by name, in the model's order."""
    return {name: item for name, item in model.named_parameters() if item.requires_grad}


def adapter_state(model: nn.Module, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The adapter's weights under the names that plain PEFT loads, on the CPU. `values`: copies of what is `trained`.

    Of the adapter alone: a state dict of the whole model would move sharded weights, which all ranks must do together.
    """
    own = dict(trained(model) if values is None else values)
    state: dict[str, Tensor] = get_peft_model_state_dict(model, state_dict=own, save_embedding_layers=False)
    return {name: item.detach().cpu().contiguous() for name, item in state.items()}


def load_adapter(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts saved weights into the attached adapter. Raises ModelError when they are another adapter's."""
    result = set_peft_model_state_dict(model, state)
    absent = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or absent:
        raise ModelError(f"the checkpoint's adapter does not fit the model: {[*result.unexpected_keys, *absent][0]}")


def adapter_config(model: Any, base_model: str) -> LoraConfig:
    """PEFT's configuration as it is saved beside the weights, naming the base model by what users can load."""
    config: LoraConfig = model.peft_config[model.active_adapter]
    config.base_model_name_or_path = base_model
    return config
