"""What of a loaded model can get LoRA, and how PEFT is told which of it does; dense models and mixtures of experts.

In a mixture of experts PEFT rewrites the names gate_proj, up_proj and down_proj to the routed experts and drops what
else is called so (the shared experts, the first dense layers). Named as parameters, like
`mlp.shared_experts.gate_proj.weight`, it leaves them alone, and reloads them exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from lorajob_runtime.models import families
from lorajob_runtime.models.shapes import Group

GROUPS: tuple[Group, ...] = ("attention", "dense", "shared", "experts", "router", "other")
_OTHER_ROUTERS = frozenset({"router", "shared_expert_gate"})
"""What model types of no known family call their routers."""
_MLPS = ("mlp", "feed_forward", "ffn")
_BARE_MLP = ("fc1", "fc2")
"""An MLP's layers where they are the decoder layer's own, as OPT has them."""
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
    tied: bool = False
    """Whether its weight is the embedding's as well."""

    @property
    def name(self) -> str:
        """What a user calls it: q_proj, gate_up_proj, gate."""
        return self.full_name.rsplit(".", 1)[-1]

    @property
    def shown(self) -> str:
        """Its name in a report, which tells experts from others."""
        return f"experts.{self.name}" if self.group == "experts" else self.name

    @property
    def key(self) -> str:
        """The weight's name, as PEFT matches it."""
        return self.path if self.parameter is None else f"{self.path}.{self.parameter}"

    @property
    def full_name(self) -> str:
        """The path that users may name an end of."""
        return self.key if self.is_stack else self.path

    @property
    def is_stack(self) -> bool:
        """Whether it holds all experts' weights."""
        return self.group == "experts" and not self.linear


def inventory(model: nn.Module) -> list[Target]:
    """Everything in a plain model that can get LoRA, in the model's order."""
    sparse = blocks(name for name, _ in model.named_modules())
    embedded = _embedding(model)
    rewritten = rewritten_names()
    found = []
    for name, module in model.named_modules():
        group = group_of(name, sparse)
        if isinstance(module, nn.Linear):
            # what PEFT would rewrite is named as a parameter
            as_parameter = bool(sparse) and name.rsplit(".", 1)[-1] in rewritten
            parameter = "weight" if as_parameter else None
            found.append(
                Target(group=group, path=name, parameter=parameter, linear=True, tied=module.weight is embedded)
            )
        elif group in ("experts", "router"):
            wanted = 3 if group == "experts" else 2
            for parameter, value in module.named_parameters(recurse=False):
                if value.ndim == wanted:
                    found.append(Target(group=group, path=name, parameter=parameter, linear=False))
    return found


def rewritten_names() -> frozenset[str]:
    """Module names that PEFT takes for those of experts, wherever they are."""
    return frozenset({"gate", *families.expert_stacks()})


def _embedding(model: nn.Module) -> nn.Parameter | None:
    """The input embedding's weight; None for a model that names none."""
    try:
        return cast(nn.Parameter, cast(Any, model).get_input_embeddings().weight)
    except (AttributeError, NotImplementedError):
        return None


def group_of(path: str, sparse: frozenset[str]) -> Group:
    """The part of a layer that a module belongs to; `sparse` are the paths of the blocks with experts."""
    parts = path.split(".")
    for index in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:index]) in sparse:
            inside = parts[index]
            if inside == "experts":
                return "experts"
            return "router" if inside in families.router_names() | _OTHER_ROUTERS else "shared"
    # a layer can have several of a kind, by number
    around = next((part for part in reversed(parts[:-1]) if not part.isdigit()), "")
    if "att" in around:
        return "attention"
    return "dense" if any(name in around for name in _MLPS) or parts[-1] in _BARE_MLP else "other"


def blocks(names: Iterable[str]) -> frozenset[str]:
    """The paths of the blocks with routed experts, from the names of all modules."""
    return frozenset(name.removesuffix(".experts") for name in names if name.endswith(".experts"))


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
