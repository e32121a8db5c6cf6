"""A and B of a group of LoRA layers as the group's products take them, and where the gradients of both go.

A and B are fp32 parameters. Products take them in the type of the input: one A for all layers of the group, their ranks
stacked, and B layer by layer. The copies in a lower precision are made again when a parameter has changed, which is
once an optimizer step. Where `lay_out` has put all parameters into one storage that is one copy for the whole model,
and none at all in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import register_optimizer_step_post_hook


@dataclass(eq=False, slots=True)
class Factors:
    """Of the layers' active adapter. `a` and `b` are the parameters, layer by layer."""

    a: tuple[nn.Parameter, ...]
    b: tuple[nn.Parameter, ...]
    flat: FlatFactors | None = None
    writes_gradients: bool = False
    """Whether gradients are added to `.grad` here, instead of by autograd after two more passes over them."""
    _versions: tuple[int, ...] = ()
    _copies: tuple[Tensor, tuple[Tensor, ...]] | None = field(default=None, repr=False)

    @property
    def ranks(self) -> list[int]:
        return [item.shape[0] for item in self.a]

    def current(self, dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A [sum of ranks, in] and each layer's B [out, rank] as `dtype`, of what the parameters are now."""
        known = self._copies
        if known is not None and (known[0].dtype, known[0].device) == (dtype, self.a[0].device) and not self.changed():
            return known
        if self.flat is None or not self.flat.refresh(dtype):
            stacked = torch.cat([item.detach() for item in self.a]).to(dtype)
            self.take(stacked, [item.detach().to(dtype) for item in self.b])
        return cast(tuple[Tensor, tuple[Tensor, ...]], self._copies)

    def changed(self) -> bool:
        """Whether a parameter was written to since the copies were made."""
        return self._versions != tuple(item._version for item in (*self.a, *self.b))

    def take(self, stacked: Tensor, b: Iterable[Tensor]) -> None:
        """Makes these the copies of what the parameters are now."""
        self._copies = stacked, tuple(b)
        self._versions = tuple(item._version for item in (*self.a, *self.b))

    def gradients_of_a(self, gradient_down: Tensor, rows: Tensor) -> list[Tensor | None]:
        """gradient_down [T, sum of ranks] and rows [T, in] -> each A's gradient, None where it was added to `.grad`."""
        target = _end_to_end([item.grad for item in self.a]) if self.writes_gradients else None
        if target is None:
            return list(fp32_product(gradient_down.t(), rows).split(self.ranks))
        add_product_(target, gradient_down.t(), rows)
        return [None] * len(self.a)

    def gradient_of_b(self, index: int, gradient: Tensor, down: Tensor, scale: float) -> Tensor | None:
        """gradient [T, out] and down [T, rank] -> the gradient of B number `index`, None where it was added."""
        target = self.b[index].grad if self.writes_gradients else None
        if target is None:
            return fp32_product(down.t(), gradient).mul_(scale).t()
        add_product_(target.t(), down.t(), gradient, scale)
        return None


class FlatFactors:
    """All factors of a model in one fp32 storage, and one copy of it in another precision."""

    def __init__(self, groups: Sequence[Factors]) -> None:
        self._groups = groups
        self.parameters = [item for group in groups for item in (*group.a, *group.b)]
        self._flat = torch.cat([item.detach().reshape(-1) for item in self.parameters])
        self._copy = self._flat
        for item, part in zip(self.parameters, self._parts(self._flat), strict=True):
            item.data = part
        for group in groups:
            group.flat = self

    def _parts(self, flat: Tensor) -> list[Tensor]:
        sizes = [item.numel() for item in self.parameters]
        return [part.view(item.shape) for part, item in zip(flat.split(sizes), self.parameters, strict=True)]

    def refresh(self, dtype: torch.dtype) -> bool:
        """Copies all factors as they are now, for all groups. False where parameters were moved out of the storage."""
        flat = self._flat
        storage, start = flat.untyped_storage()._cdata, 0
        for item in self.parameters:
            if (item.untyped_storage()._cdata, item.storage_offset()) != (storage, start):
                return False
            start += item.numel()
        if dtype == flat.dtype:
            self._copy = flat
        elif self._copy.dtype == dtype:
            self._copy.copy_(flat)
        else:
            self._copy = flat.to(dtype)
        parts = iter(self._parts(self._copy))
        for group in self._groups:
            stacked = cast(Tensor, _end_to_end([next(parts) for _ in group.a]))
            group.take(stacked, [next(parts) for _ in group.b])
        return True


def lay_out(groups: Sequence[Factors]) -> list[nn.Parameter]:
    """Puts the factors of all groups into one storage, each group's A end to end; returns them in that order.

    For before an optimizer or a gradient buffer knows the parameters, which stay the same objects.
    """
    return FlatFactors(groups).parameters if groups else []


def _end_to_end(matrices: Sequence[Tensor | None]) -> Tensor | None:
    """Matrices of one width as the one matrix that they are in memory; None where they are not."""
    first = matrices[0]
    if first is None or len(matrices) == 1:
        return first
    storage, end = first.untyped_storage()._cdata, first.storage_offset()
    for item in matrices:
        if item is None or not item.is_contiguous():
            return None
        if (item.untyped_storage()._cdata, item.storage_offset()) != (storage, end):
            return None
        end += item.numel()
    rows = sum(item.shape[0] for item in matrices if item is not None)
    return first.as_strided((rows, first.shape[1]), first.stride())


def fp32_product(left: Tensor, right: Tensor) -> Tensor:
    """The product of two matrices in fp32; on a GPU without rounding it to their type first."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda and _HAS_OUTPUT_TYPE:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def add_product_(target: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Adds a scaled product to an fp32 matrix; on a GPU in one kernel."""
    if left.dtype == torch.float32:
        target.addmm_(left, right, alpha=scale)
    elif left.is_cuda and _adds_in_fp32(left.device):
        torch.ops.aten.addmm.dtype_out(target, left, right, torch.float32, alpha=scale, out=target)
    else:
        target.add_(fp32_product(left, right), alpha=scale)


_HAS_OUTPUT_TYPE = "dtype" in torch.ops.aten.mm.overloads()


@functools.cache
def _adds_in_fp32(device: torch.device) -> bool:
    """Whether a device adds a product of 16-bit matrices to an fp32 one in place: tried once, by its result."""
    if "dtype_out" not in torch.ops.aten.addmm.overloads():
        return False
    ones, target = torch.ones((16, 16), dtype=torch.bfloat16, device=device), torch.ones((16, 16), device=device)
    try:
        torch.ops.aten.addmm.dtype_out(target, ones, ones, torch.float32, alpha=2.0, out=target)
    except (RuntimeError, NotImplementedError):
        return False
    # of tensors without numbers, with which passes are counted, there is no more to see
    return isinstance(target, FakeTensor) or bool((target == 33).all())


def _count_writes(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """torch's fused optimizers write to parameters without counting it, and copies of them would be thought current."""
    increment_version([item for group in optimizer.param_groups for item in group["params"]])


register_optimizer_step_post_hook(_count_writes)


def of(layers: Sequence[Any]) -> Factors:
    """Of PEFT layers with one active adapter each."""
    adapters = [layer.active_adapters[0] for layer in layers]
    pairs = list(zip(layers, adapters, strict=True))
    return Factors(
        a=tuple(layer.lora_A[name].weight for layer, name in pairs),
        b=tuple(layer.lora_B[name].weight for layer, name in pairs),
    )
