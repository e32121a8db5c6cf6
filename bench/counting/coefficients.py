"""The rows of `lorajob_runtime.models.kernel_costs`, counted: one for every kind of layer that the recipes have.

Dropout is torch's own, as in the image: it has no C compiler, without which there is no Triton kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from counting.layers import MicroBatch, count
from counting.operations import Count, total
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.models import architecture
from lorajob_runtime.models.kernel_costs import Experts, LayerCost, PassCost, width
from lorajob_runtime.models.lora_weights import adapted
from lorajob_runtime.train.lora import dropout

KINDS: tuple[tuple[str, Experts], ...] = (
    ("qwen2.5-coder-7b", "none"),
    ("qwen3-8b", "none"),
    ("glm-4.5-air", "bare"),
    ("minimax-m2", "bare"),
    ("hunyuan-a13b", "bare"),
    ("glm-4.5-air", "adapted"),
    ("minimax-m2", "adapted"),
    ("hunyuan-a13b", "adapted"),
)
_LENGTH, _TARGETS = 128, 42
_FEW, _MORE = (MicroBatch(documents=documents, length=_LENGTH, targets=_TARGETS) for documents in (16, 32))


@dataclass(frozen=True, kw_only=True, slots=True)
class Coefficients:
    """A row, and the bytes that the loss moves for a logit beside its products."""

    row: LayerCost
    head_bytes: float


def counted(model: str, experts: Experts) -> Coefficients:
    """Of a model of the catalog, whose first layer of that kind is taken."""
    config = catalog.get(model).config
    spec = parse({"model": {"name": model}})
    shapes = architecture.read(config)
    if shapes is None:
        raise ValueError(model)
    number = next(n for n, layer in enumerate(shapes.layers) if bool(layer.experts_per_token) == (experts != "none"))
    with_experts = experts == "adapted"
    few, more = count(config, spec, [_FEW, _MORE], layer=number, experts=with_experts, draws=dropout.FIRST)
    trained = sum(
        each.matrix.adapter_parameters(spec.lora.rank)
        for each in adapted(shapes, spec.lora, experts=with_experts)
        if each.layer == number
    )
    passes = {
        name: _pass(total(few.layer, name), total(more.layer, name), width(shapes.layers[number]), trained)
        for name in ("forward", "backward")
    }
    ends = total(few.ends) - total(few.layer) - total(few.layer)
    return Coefficients(
        row=LayerCost(head_norms=shapes.head_norms, experts=experts, **passes),
        head_bytes=round(ends.moved / (_FEW.documents * _TARGETS * shapes.vocabulary), 1),
    )


def _pass(few: Count, more: Count, width: int, trained: int) -> PassCost:
    """What grows with the tokens, and what does not."""
    tokens = _MORE.tokens - _FEW.tokens
    growing = more - few
    constant = few - growing
    return PassCost(
        kernels=few.kernels,
        dispatches=few.dispatches,
        other=round(growing.moved / tokens / width, 2),
        thin=round(growing.thin / tokens / width, 2),
        adapter_bytes=round((constant.moved + constant.thin) / trained, 1),
    )


def as_source(row: LayerCost) -> str:
    """The row as `kernel_costs` has it."""
    passes = ", ".join(
        f"({each.kernels}, {each.dispatches}, {each.other}, {each.thin}, {each.adapter_bytes})"
        for each in (row.forward, row.backward)
    )
    return f'    _row("{row.head_norms}", "{row.experts}", {passes}),'
