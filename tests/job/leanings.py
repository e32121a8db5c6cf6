"""The list of what we lean on in other libraries, and the tiny models that its checks try it on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import families

TOKENS = torch.arange(5, 17).unsqueeze(0)


@dataclass(frozen=True)
class Leaning:
    """One thing of a library, which modules of ours use it, what for, and a check that ends in an AssertionError."""

    thing: str
    by: str
    why: str
    check: Callable[[], None]


LEANINGS: list[Leaning] = []


def leaned_on(thing: str, *, by: str, why: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Puts a check into the list."""

    def listed(check: Callable[[], None]) -> Callable[[], None]:
        LEANINGS.append(Leaning(thing, by, why, check))
        return check

    return listed


def parameters(function: Any) -> set[str]:
    """The names of what a function takes."""
    return set(inspect.signature(function).parameters)


@functools.cache
def model(family: str) -> Any:
    """A tiny model in fp32, frozen. Its tests leave it as it was."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(families.config(family), dtype=torch.float32)
    return made.requires_grad_(False).eval()


@functools.cache
def adapted(family: str) -> Any:
    """A model of its own with PEFT's adapter on the experts, the shared experts and q_proj, as `lora.attach` asks."""
    from lorajob_runtime.contract.spec import LoraSpec
    from lorajob_runtime.train.lora import attach

    base = model.__wrapped__(family)
    return attach.attach(base, LoraSpec(dropout=0.0), seed=1, experts=True)


def wrappers(peft_model: nn.Module) -> Iterator[Any]:
    from peft.tuners.lora.layer import ParamWrapper

    return (module for module in peft_model.modules() if type(module) is ParamWrapper)
