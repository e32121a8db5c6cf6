"""Which of a model's weights get an adapter: what the names of `lora.targets` mean, and what is refused.

Standard library only: the same rules hold for weights known from a config.json and for those of a loaded model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import families

AUTO_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What `lora.targets: auto` stands for, as in the recipes; with it goes everything else in attention and MLPs."""

_AUTO_GROUPS = ("attention", "dense", "shared")
_LAYER = re.compile(r"^(.*?\.\d+)\.")
_TOWER = re.compile(r"vision|image|audio")
"""In the names of what turns pictures and sounds into tokens, which text alone does not reach."""

_EMBEDDINGS = frozenset({"embed_tokens", "wte", "wpe", "word_embeddings", "tok_embeddings", "embed_in", "embeddings"})
_NORM = re.compile(r"norm|^ln_|_ln$")


class Candidate(Protocol):
    """A weight that can get an adapter."""

    @property
    def group(self) -> str:
        """attention, dense, shared, experts, router or other."""

    @property
    def full_name(self) -> str:
        """Its full name, of which users may name an end."""

    @property
    def is_stack(self) -> bool:
        """Whether it holds all experts' weights, gate and up in one."""

    @property
    def tied(self) -> bool:
        """Whether it is the head and the embedding as well."""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def asks_for_experts(candidates: Iterable[Candidate], lora: LoraSpec) -> bool:
    """Whether a spec wants adapters on routed experts that are among the candidates, given that memory allows it."""
    experts = (each for each in candidates if each.group == "experts")
    if lora.experts == "auto":
        return any(matches(each, name) for each in experts for name in _asked(lora))
    return lora.experts and any(experts)


def select(candidates: Sequence[AnyCandidate], lora: LoraSpec, *, experts: bool, model: str) -> list[AnyCandidate]:
    """What gets an adapter, in the order given. `experts`: whether routed experts do, if the spec asks for them.

    Raises ConfigError, in which `model` is what the model is called, for a name that it does not have, for experts or a
    router that it does not have, and for layers of which auto knows nothing.
    """
    _refuse_absent(candidates, lora, model)
    chosen: set[str] = set()
    for name in _asked(lora):
        called = [each for each in candidates if matches(each, name)]
        if any(each.tied for each in called):
            raise ConfigError(
                f"lora.targets has {name!r}: {model} has one weight for its head and its embedding, and an adapter on "
                "one of them would be another model when it is merged; leave it out",
                path="lora.targets",
            )
        usable = [each for each in called if each.group != "router" and (experts or each.group != "experts")]
        if lora.targets != "auto" and not usable:
            raise ConfigError(_no_match_message(name, called, candidates, model), path="lora.targets")
        chosen |= {each.full_name for each in usable}
        _require_gate_and_up(name, _asked(lora), usable)
    if lora.targets == "auto" and chosen:
        # models may have projections of other names, and several in one matrix
        chosen |= {each.full_name for each in candidates if each.group in _AUTO_GROUPS and _layer(each)}
        _refuse_bare_layers(candidates, chosen, model)
    if experts and lora.experts is True:
        chosen |= {each.full_name for each in candidates if each.group == "experts"}
    if lora.router:
        chosen |= {each.full_name for each in candidates if each.group == "router"}
    if not chosen:
        raise ConfigError(
            f"lora.targets is auto: {model} has none of {', '.join(AUTO_TARGETS)}; it has {names(candidates)}",
            path="lora.targets",
        )
    return [each for each in candidates if each.full_name in chosen]


def matches(candidate: Candidate, name: str) -> bool:
    """Whether `name` is the candidate's, an end of its full name, or that of an expert's projection in a stack."""
    if candidate.is_stack:
        prefix, _, last = name.rpartition(".")
        stack = families.expert_stacks().get(last, last)
        name = f"{prefix}.{stack}" if prefix else stack
    return f".{candidate.full_name}".endswith(f".{name}")


def names(candidates: Sequence[Candidate]) -> str:
    """What may be named, for a person."""
    return ", ".join(sorted({each.full_name.rsplit(".", 1)[-1] for each in candidates if not each.tied}))


def _asked(lora: LoraSpec) -> tuple[str, ...]:
    return AUTO_TARGETS if lora.targets == "auto" else lora.targets


def _refuse_absent(candidates: Sequence[Candidate], lora: LoraSpec, model: str) -> None:
    groups = {each.group for each in candidates}
    for field, asked, group, title in (
        ("experts", lora.experts is True, "experts", "experts"),
        ("router", lora.router, "router", "router"),
    ):
        if asked and group not in groups:
            raise ConfigError(
                f"lora.{field} is true: {model} has no {title}, so it must be false or left out", path=f"lora.{field}"
            )


def _no_match_message(name: str, matches: Sequence[Candidate], candidates: Sequence[Candidate], model: str) -> str:
    if not matches and (kind := _kind_without(name)) is not None:
        return f"lora.targets has {name!r}: {kind}, which gets no adapter; {model} has {names(candidates)}"
    if not matches:
        return f"lora.targets has {name!r}: no weight of {model} is called so; it has {names(candidates)}"
    if matches[0].group == "router":
        return f"lora.targets has {name!r}: that is the router, which trains only with lora.router: true"
    return f"lora.targets has {name!r}: only routed experts are called so, and they get no adapter in this run"


def _kind_without(name: str) -> str | None:
    """What a name is that of, where it is of a kind of weight that no adapter goes to."""
    last = name.rpartition(".")[2]
    if last in _EMBEDDINGS:
        return "that is an embedding"
    return "that is a norm" if _NORM.search(last) else None


def _layer(candidate: Candidate) -> str | None:
    """`model.layers.7`, the decoder layer that a weight is in; None for one of no such layer."""
    found = _LAYER.match(candidate.full_name)
    return found[1] if found and not _TOWER.search(found[1]) else None


def _refuse_bare_layers(candidates: Sequence[Candidate], chosen: set[str], model: str) -> None:
    """Raises ConfigError for decoder layers with weights none of which is chosen."""
    inside = [each for each in candidates if each.group not in ("router", "experts") and _layer(each)]
    adapted = {_layer(each) for each in inside if each.full_name in chosen}
    bare = [each for each in inside if _layer(each) not in adapted]
    if bare:
        count = len({_layer(each) for each in bare})
        raise ConfigError(
            f"lora.targets is auto: {count} of {model}'s layers have no attention and no MLP that it knows; "
            f"name what is to train, which in those can be {names(bare)}",
            path="lora.targets",
        )


def _require_gate_and_up(name: str, asked: Sequence[str], usable: Sequence[Candidate]) -> None:
    """Raises ConfigError for only one of gate and up of experts, which hold both in one weight."""
    partner = families.gate_and_up().get(name.rsplit(".", 1)[-1])
    if partner is None or not any(each.group == "experts" and each.is_stack for each in usable):
        return
    if not any(other.rsplit(".", 1)[-1] == partner for other in asked):
        raise ConfigError(
            f"lora.targets has {name!r} without {partner!r}: the routed experts hold both in one weight; "
            "name both, or set lora.experts to false",
            path="lora.targets",
        )
