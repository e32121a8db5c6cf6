"""What of a model can get LoRA, what a spec asks for, and how PEFT is told: dense models and mixtures of experts alike.

In a mixture of experts PEFT rewrites the names gate_proj, up_proj and down_proj to the routed experts and drops what
else is called so (the shared experts, the first dense layers). Named as parameters, like
`mlp.shared_experts.gate_proj.weight`, it leaves them alone, and reloads them exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from lorajob_runtime.exits import ConfigError
from lorajob_runtime.spec import LoraSpec

AUTO_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Group = Literal["attention", "dense", "shared", "experts", "router", "other"]
GROUPS: tuple[Group, ...] = ("attention", "dense", "shared", "experts", "router", "other")
# names of one expert's projections, of the tutorials and of the hubs' files, and the fused parameter each is a part of
FUSED = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "w1": "gate_up_proj",
    "w3": "gate_up_proj",
    "gate_up_proj": "gate_up_proj",
    "down_proj": "down_proj",
    "w2": "down_proj",
}
_PARTNER = {"gate_proj": "up_proj", "up_proj": "gate_proj", "w1": "w3", "w3": "w1"}
# module names that PEFT takes for those of experts, wherever they are
_REWRITTEN = frozenset({"gate", *FUSED})
_LAYER = re.compile(r"^.*?\blayers\.\d+\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One weight that can get an adapter: a linear layer (`parameter` None), or a parameter of a module."""

    group: Group
    path: str
    """Of the module, in the plain model."""
    parameter: str | None
    linear: bool
    """Whether the module is a linear layer; those of `parameter` "weight" can be either."""

    @property
    def name(self) -> str:
        """What a user calls it: q_proj, gate_up_proj, gate."""
        fused = self.parameter not in (None, "weight")
        return str(self.parameter) if fused else self.path.rsplit(".", 1)[-1]

    @property
    def shown(self) -> str:
        """Its name in a report, which tells experts from others."""
        return f"experts.{self.name}" if self.group == "experts" else self.name

    @property
    def key(self) -> str:
        """The weight's name, as PEFT matches it."""
        return self.path if self.parameter is None else f"{self.path}.{self.parameter}"

    @property
    def dotted(self) -> str:
        """The path that users may name an end of."""
        return self.path if self.name == self.path.rsplit(".", 1)[-1] else self.key


def has_experts(model: nn.Module) -> bool:
    """Whether the model routes tokens to experts."""
    return bool(blocks(name for name, _ in model.named_modules()))


def inventory(model: nn.Module) -> list[Target]:
    """Everything in a plain model that can get LoRA, in the model's order."""
    sparse = blocks(name for name, _ in model.named_modules())
    found = []
    for name, module in model.named_modules():
        group = group_of(name, sparse)
        if isinstance(module, nn.Linear):
            # what PEFT would rewrite is named as a parameter
            as_parameter = bool(sparse) and name.rsplit(".", 1)[-1] in _REWRITTEN
            parameter = "weight" if as_parameter else None
            found.append(Target(group=group, path=name, parameter=parameter, linear=True))
        elif group in ("experts", "router"):
            wanted = 3 if group == "experts" else 2
            for parameter, value in module.named_parameters(recurse=False):
                if value.ndim == wanted:
                    found.append(Target(group=group, path=name, parameter=parameter, linear=False))
    return found


def group_of(path: str, sparse: frozenset[str]) -> Group:
    """The part of a layer that a module belongs to; `sparse` are the paths of the blocks with experts."""
    parts = path.split(".")
    for index in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:index]) in sparse:
            inside = parts[index]
            if inside == "experts":
                return "experts"
            return "router" if inside in ("gate", "router") else "shared"
    if len(parts) > 1 and "att" in parts[-2]:
        return "attention"
    return "dense" if len(parts) > 1 and ("mlp" in parts[-2] or "feed_forward" in parts[-2]) else "other"


def blocks(names: Iterable[str]) -> frozenset[str]:
    """The paths of the blocks with routed experts, from the names of all modules."""
    return frozenset(name.removesuffix(".experts") for name in names if name.endswith(".experts"))


def asks_for_experts(lora: LoraSpec) -> bool:
    """Whether a spec wants adapters on routed experts, given that the model has some and memory allows it."""
    if lora.experts == "auto":
        asked = AUTO_TARGETS if lora.targets == "auto" else lora.targets
        return any(name.rsplit(".", 1)[-1] in FUSED for name in asked)
    return lora.experts


def choose(model: nn.Module, lora: LoraSpec, *, experts: bool) -> list[Target]:
    """What gets an adapter, in the model's order. `experts`: whether routed experts do, if the spec asks for them.

    Raises ConfigError for a name that the model does not have, and for experts or a router that it does not have.
    """
    candidates = inventory(model)
    model_name = type(model).__name__
    _refuse_absent(candidates, lora, model_name)
    asked = AUTO_TARGETS if lora.targets == "auto" else lora.targets
    chosen: set[str] = set()
    for name in asked:
        matches = [target for target in candidates if _is_called(target, name)]
        if not matches and lora.targets != "auto":
            raise ConfigError(
                f"lora.targets has {name!r}: no weight of {model_name} is called so; it has {_names(candidates)}"
            )
        usable = [target for target in matches if target.group != "router" and (experts or target.group != "experts")]
        if matches and not usable and lora.targets != "auto":
            raise ConfigError(_unusable(name, matches[0]))
        chosen |= {target.key for target in usable}
        _refuse_half(name, asked, usable)
    if experts and lora.experts is True:
        chosen |= {target.key for target in candidates if target.group == "experts"}
    if lora.router:
        chosen |= {target.key for target in candidates if target.group == "router"}
    if not chosen:
        raise ConfigError(
            f"lora.targets is auto: {model_name} has none of {', '.join(AUTO_TARGETS)}; it has {_names(candidates)}"
        )
    return [target for target in candidates if target.key in chosen]


def _is_called(target: Target, name: str) -> bool:
    """Whether `name` is the target's, an end of its path, or that of an expert's projection fused into it."""
    if target.group == "experts" and not target.linear:
        prefix, _, last = name.rpartition(".")
        fused = FUSED.get(last, last)
        name = f"{prefix}.{fused}" if prefix else fused
    return f".{target.dotted}".endswith(f".{name}")


def _refuse_absent(candidates: list[Target], lora: LoraSpec, model_name: str) -> None:
    groups = {target.group for target in candidates}
    for field, asked, group in (("experts", lora.experts is True, "experts"), ("router", lora.router, "router")):
        if asked and group not in groups:
            raise ConfigError(
                f"lora.{field} is true: {model_name} has no {'experts' if group == 'experts' else 'router'}, "
                "so it must be false or left out"
            )


def _refuse_half(name: str, asked: Sequence[str], usable: list[Target]) -> None:
    """Raises ConfigError for only one of gate and up of experts, which hold both in one weight."""
    partner = _PARTNER.get(name.rsplit(".", 1)[-1])
    fused = any(target.group == "experts" and not target.linear for target in usable)
    if fused and partner is not None and not any(other.rsplit(".", 1)[-1] == partner for other in asked):
        raise ConfigError(
            f"lora.targets has {name!r} without {partner!r}: the routed experts hold both in one weight; "
            "name both, or set lora.experts to false"
        )


def _unusable(name: str, match: Target) -> str:
    if match.group == "router":
        return f"lora.targets has {name!r}: that is the router, which trains only with lora.router: true"
    return f"lora.targets has {name!r}: only routed experts are called so, and they get no adapter in this run"


def _names(candidates: list[Target]) -> str:
    return ", ".join(sorted({target.name for target in candidates}))


def peft_names(chosen: Sequence[Target], candidates: Sequence[Target]) -> tuple[list[str], list[str]]:
    """PEFT's `target_modules` and `target_parameters`: as short as they can be without matching anything else."""
    keys = {target.key for target in chosen}
    modules: dict[str, None] = {}
    parameters: dict[str, None] = {}
    for target in chosen:
        within_layer = _LAYER.sub("", target.key)
        short = [within_layer] if target.parameter else [target.name, within_layer]
        name = next((end for end in short if _only(end, keys, candidates)), target.key)
        (modules if target.parameter is None else parameters)[name] = None
    return list(modules), list(parameters)


def _only(end: str, keys: set[str], candidates: Sequence[Target]) -> bool:
    return all(each.key in keys for each in candidates if f".{each.key}".endswith(f".{end}"))
