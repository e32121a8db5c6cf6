"""LoRA layers that read the same input are computed together, when the first of them is called.

q, k and v, or gate and up, of most models; which they are is found by watching a forward pass, not by their names. The
call of one computes the outputs of all, and the others pick theirs up. Whoever calls them otherwise (one alone, one
twice, with another input, again under gradient checkpointing) gets what the layer alone would give: an output waits
only for a call with the very tensor that it was computed from, in the same pass, and for no longer than until another
group is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from lorajob_runtime.train.lora import factors
from lorajob_runtime.train.lora.dropout import Draw, DropoutMasks
from lorajob_runtime.train.lora.factors import Factors


@dataclass(eq=False, slots=True)
class Waiting:
    """The outputs that one group, the last one computed in the model, has not been asked for yet."""

    group: Group | None = None
    input: Tensor | None = field(default=None, repr=False)
    state: tuple[Any, ...] = ()
    outputs: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def keep(self, group: Group, x: Tensor, outputs: dict[int, Tensor]) -> None:
        self.group, self.input, self.state, self.outputs = group, x, _state(x), outputs

    def take(self, group: Group, x: Tensor, member: int) -> Tensor | None:
        """The output of a member for this input, once."""
        if self.group is not group or self.input is not x or self.state != _state(x):
            return None
        output = self.outputs.pop(member, None)
        if not self.outputs:
            self.clear()
        return output

    def clear(self) -> None:
        self.group = self.input = None
        self.outputs = {}


def _state(x: Tensor) -> tuple[Any, ...]:
    """What must not have changed since an output was computed."""
    version = 0 if x.is_inference() else x._version
    # the number of the backward pass in which a layer is computed again, none in a forward pass
    return version, torch.is_grad_enabled(), torch._C._current_graph_task_id()


Compute = Callable[["Group", Tensor, Draw | None], tuple[Tensor, ...]]


class Group:
    """Fused LoRA layers with one input, or a single one."""

    def __init__(self, layers: Sequence[Any], masks: DropoutMasks, waiting: Waiting, compute: Compute) -> None:
        self.layers = list(layers)
        self._masks, self._waiting, self._compute = masks, waiting, compute
        self._adapters: tuple[str, ...] = ()
        self._factors: Factors | None = None

    def joined(self, others: Sequence[Group]) -> Group:
        """One group of this one's layers and others'."""
        layers = [layer for group in (self, *others) for layer in group.layers]
        return Group(layers, self._masks, self._waiting, self._compute)

    def output(self, layer: Any, x: Tensor) -> Tensor:
        """The layer's output for x [..., in]."""
        if len(self.layers) == 1:
            return self._compute(self, x, self._draw(layer, x))[0]
        member = next(number for number, each in enumerate(self.layers) if each is layer)
        waiting = self._waiting.take(self, x, member)
        if waiting is not None:
            return waiting
        outputs = dict(enumerate(self._compute(self, x, self._draw(layer, x))))
        result = outputs.pop(member)
        self._waiting.keep(self, x, outputs)
        return result

    def forget(self) -> None:
        """Lets go of outputs that wait."""
        self._waiting.clear()

    def _draw(self, layer: Any, x: Tensor) -> Draw | None:
        probability = dropout_of(layer) if layer.training else 0.0
        return self._masks.draw(x, probability, layer.fused_index) if probability else None

    @property
    def factors(self) -> Factors:
        """A and B of the layers' active adapters."""
        adapters = tuple(layer.active_adapters[0] for layer in self.layers)
        if self._factors is None or self._adapters != adapters:
            self._adapters, self._factors = adapters, factors.of(self.layers)
        return self._factors


class Fused:
    """A PEFT layer with a linear base that is computed by a group, in training and outside of it.

    Merged, disabled or with several adapters it is PEFT's own.
    """

    fused_group: Group
    fused_index: int
    """The layer's number in the model, from which follows what its input has dropped."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = cast(Any, self)
        if layer.disable_adapters or layer.merged or args or kwargs or len(layer.active_adapters) != 1:
            return cast(Tensor, cast(Any, super()).forward(x, *args, **kwargs))
        return self.fused_group.output(self, x)


def dropout_of(layer: Any) -> float:
    """The probability that an element of a PEFT layer's input is dropped."""
    return float(getattr(layer.lora_dropout[layer.active_adapters[0]], "p", 0.0))


def find(model: nn.Module, run: Callable[[], Any]) -> None:
    """Joins the fused layers that read the very same tensor in a forward pass, which `run` makes, in place.

    Only layers of one parent are joined, whose weights are there together where weights are sharded, and that drop out
    alike. A layer that is called more than once in a pass stays alone.
    """
    seen: dict[tuple[str, int], list[Any]] = {}
    alive: list[Tensor] = []
    called: list[Any] = []
    handles = []
    for name, module in model.named_modules():
        if hasattr(module, "fused_group"):

            def note(layer: Any, inputs: tuple[Any, ...], parent: str = name.rpartition(".")[0]) -> None:
                alive.append(inputs[0])
                called.append(layer)
                seen.setdefault((parent, id(inputs[0])), []).append(layer)

            handles.append(module.register_forward_pre_hook(note))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for layers in seen.values():
        alike = [layer for layer in layers if called.count(layer) == 1 and _kind(layer) == _kind(layers[0])]
        if len(alike) > 1:
            joined = alike[0].fused_group.joined([layer.fused_group for layer in alike[1:]])
            for layer in alike:
                layer.__dict__["fused_group"] = joined


def _kind(layer: Any) -> tuple[Any, ...]:
    """What layers must have in common to be computed together."""
    weight = layer.get_base_layer().weight
    return type(layer), type(weight), weight.dtype, dropout_of(layer)


def forget(model: nn.Module) -> None:
    """Lets go of outputs that nobody asks for any more, since a pass was cut short: a whole graph hangs on them."""
    for module in model.modules():
        if (group := getattr(module, "fused_group", None)) is not None:
            group.forget()


def lay_out(model: nn.Module) -> list[nn.Parameter]:
    """Puts the factors of all fused layers into one storage; returns all trained parameters, first those in order.

    For before an optimizer knows them. Where gradients lie in this order, they are added there without autograd.
    """
    found = {id(group): group for module in model.modules() if (group := getattr(module, "fused_group", None))}
    everything = [group.factors for group in found.values()]
    for item in everything:
        item.writes_gradients = True
    laid = factors.lay_out(everything)
    known = {id(item) for item in laid}
    return laid + [item for item in model.parameters() if item.requires_grad and id(item) not in known]
