"""Every operation of torch as the GPU would get it: whether it launches a kernel, and what that moves."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = frozenset(
    {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "_grouped_mm", "_scaled_mm", "_scaled_grouped_mm"}
)
"""Matrix products, which are judged by their operations; what else there is, by the bytes that it moves."""

THIN = 64
"""A product takes as long as its bytes where it does fewer operations with each than that."""

_NO_KERNEL = frozenset({"_unsafe_view", "_local_scalar_dense", "lift_fresh", "_pin_memory", "set_", "resize_"})
_ONLY_WRITES = frozenset({"copy_", "fill_", "zero_", "bernoulli_", "random_", "uniform_", "normal_"})
"""Of what these write they read nothing before."""


@dataclass(slots=True)
class Count:
    """`moved` are the bytes of what a kernel reads and writes, each tensor once; of products those are in `operands`.

    `thin` are the operands of products with a side of no more than THIN numbers, as those of adapters have one.
    `products` are floating-point operations, two for every multiplication and addition. `dispatches` are calls of the
    dispatcher, views and allocations among them: what the processor pays for.
    """

    kernels: int = 0
    moved: int = 0
    products: int = 0
    operands: int = 0
    thin: int = 0
    dispatches: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def __sub__(self, other: Count) -> Count:
        return Count(**{name: getattr(self, name) - getattr(other, name) for name in self.__slots__})


Counts = dict[str, dict[str, Count]]
"""Pass ("forward", "backward") -> operation -> its count."""


def total(counts: Counts, *names: str) -> Count:
    """Of these passes, or of all."""
    return sum((each for name in names or counts for each in counts[name].values()), Count())


class OperationCounter(TorchDispatchMode):
    """Counts every operation while it is on top of FakeTensorMode, for the pass that was named last."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counts = defaultdict(lambda: defaultdict(Count))
        self._pass: str | None = None

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        self._pass = name
        try:
            yield
        finally:
            self._pass = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._pass is not None and func.namespace != "prim":
            name = func._schema.name.removeprefix("aten::")
            self.counts[self._pass][name] += _count(func, args, kwargs, result)
        return result


def _count(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Count:
    name = func._schema.name.split("::")[-1]
    if func.is_view or name in _NO_KERNEL or name.startswith(("empty", "new_empty", "sym_")):
        return Count(dispatches=1)
    written = _tensors([result, *_written_in_place(func, args, kwargs)])
    read = _tensors((args, kwargs))
    if name in _ONLY_WRITES:
        read = read[1:]
    elif name.endswith("_out") or "out" in kwargs:
        read = [each for each in read if each is not kwargs.get("out")]
    if not any(tensor.device.type == "cuda" for tensor in written or read):
        return Count(dispatches=1)
    # what is written in place is read before, and written: once in each list
    moved = sum(_bytes(tensor) for tensor in [*_distinct(read), *_distinct(written)])
    if name in PRODUCTS:
        operations, narrowest = _product(name, args)
        thin = moved if narrowest <= THIN else 0
        return Count(kernels=1, products=operations, operands=moved, thin=thin, dispatches=1)
    return Count(kernels=1, moved=moved, dispatches=1)


def _written_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation changes: one of our own need not return them."""
    given = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
    changed = (each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write)
    return [given.get(name) for name in changed]


def _product(name: str, args: tuple[Any, ...]) -> tuple[int, int]:
    """Operations of [m, k] x [k, n], and the least of m, k and n.

    Of groups every row goes through one of them, or one group's rows are summed over.
    """
    tensors = [each for each in args if isinstance(each, Tensor)]
    left, right = tensors[1:3] if name.startswith(("addmm", "baddbmm")) else tensors[:2]
    narrowest = min(*left.shape[-2:], right.shape[-1])
    if left.dim() == 3 or right.dim() == 2:
        return 2 * left.numel() * right.shape[-1], narrowest
    return 2 * left.shape[0] * right.shape[-2] * right.shape[-1], narrowest


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _bytes(tensor: Tensor) -> int:
    """Of its elements, those that are expanded from one counted once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0 or size == 0]
    return int(torch.Size(sizes).numel()) * tensor.element_size()
