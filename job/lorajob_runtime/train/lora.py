"""Attaches the adapter with PEFT and reports what got one. What was asked for and got none ends the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorajob_runtime.exits import ConfigError, ModelError
from lorajob_runtime.spec import LoraSpec

AUTO_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReport:
    """What got LoRA: module name (its last part) -> how many, and how many numbers are trained of how many."""

    targets: dict[str, int]
    trained_parameters: int
    all_parameters: int


def attach(model: PreTrainedModel, lora: LoraSpec, *, seed: int) -> nn.Module:
    """The PEFT model around `model`, its adapter in fp32, the same for the same seed.

    Raises ConfigError for a target that the model does not have, and for experts asked of a model without any.
    """
    targets = choose_targets(model, lora)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
    )
    peft_model: nn.Module = get_peft_model(model, config)
    return peft_model


def choose_targets(model: nn.Module, lora: LoraSpec) -> tuple[str, ...]:
    """The module names to adapt: as asked, or of the usual seven those that the model has as linear layers."""
    linear = Counter(name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear))
    if has_experts(model):
        raise ModelError(
            f"{type(model).__name__} is a mixture of experts: this version trains dense models only",
            hint="choose a dense model, e.g. qwen3-8b",
        )
    if lora.experts is True or lora.router:
        asked = "lora.experts" if lora.experts is True else "lora.router"
        raise ConfigError(f"{asked} is true: {type(model).__name__} has no experts, so it must be false or left out")
    if lora.targets == "auto":
        chosen = tuple(name for name in AUTO_TARGETS if name in linear)
        if not chosen:
            raise ConfigError(
                f"lora.targets is auto: {type(model).__name__} has none of {', '.join(AUTO_TARGETS)}; "
                f"its linear layers are {', '.join(sorted(linear))}"
            )
        return chosen
    for name in lora.targets:
        if name.rsplit(".", 1)[-1] not in linear:
            raise ConfigError(
                f"lora.targets has {name!r}: no linear layer of this model is called so; "
                f"it has {', '.join(sorted(linear))}"
            )
    return lora.targets


def has_experts(model: nn.Module) -> bool:
    """Whether the model routes tokens to experts."""
    return any(name.endswith(".experts") for name, _ in model.named_modules())


def report(model: nn.Module, asked: tuple[str, ...]) -> TargetReport:
    """Counts what got an adapter. Raises ConfigError when something asked for got none."""
    adapted = [name.removesuffix(".lora_A") for name, _ in model.named_modules() if name.endswith(".lora_A")]
    for target in asked:
        if not any(name.endswith(target) for name in adapted):
            raise ConfigError(f"lora.targets has {target!r}: PEFT attached no adapter there")
    counts = Counter(name.rsplit(".", 1)[-1] for name in adapted)
    return TargetReport(
        targets=dict(sorted(counts.items())),
        trained_parameters=sum(item.numel() for item in model.parameters() if item.requires_grad),
        all_parameters=sum(item.numel() for item in model.parameters()),
    )


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapter by name, in the model's order."""
    return {name: item for name, item in model.named_parameters() if item.requires_grad}


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under the names that plain PEFT loads, on the CPU."""
    state: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
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
