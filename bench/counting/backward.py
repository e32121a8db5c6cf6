"""A backward pass in Python. torch's own engine asks the driver for its streams, and there is none."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """Does what `loss.backward()` does on the GPU: the same nodes in the same order, and sums where gradients meet.

    Hooks of nodes and tensors are not called, and what was saved is not freed.
    """
    root = loss.grad_fn
    waiting = _edges_into(root)
    gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    gradients[root][loss.output_nr] = torch.ones_like(loss)
    ready = [(-root._sequence_nr(), 0, root)]
    while ready:
        node = heapq.heappop(ready)[-1]
        results = _run(node, gradients.pop(node, {}), loss.device)
        for (following, index), gradient in zip(_edges(node), results, strict=True):
            if gradient is not None:
                _add(gradients[following], index, _as_expected(gradient, following, index))
            waiting[following] -= 1
            if not waiting[following]:
                heapq.heappush(ready, (-following._sequence_nr(), len(waiting) + id(following), following))


def _edges(node: Any) -> list[tuple[Any, int]]:
    return [edge for edge in node.next_functions if edge[0] is not None]


def _edges_into(root: Any) -> Counter[Any]:
    """For every node how many others hand gradients to it."""
    found: Counter[Any] = Counter()
    seen, stack = {root}, [root]
    while stack:
        for following, _ in _edges(stack.pop()):
            found[following] += 1
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return found


def _run(node: Any, gradients: dict[int, Tensor], device: torch.device) -> list[Tensor | None]:
    """What a node gives to each of its edges."""
    given = [gradients.get(index) for index in range(len(node._input_metadata))]
    if hasattr(node, "variable"):
        node(*given)
        return []
    if all(each is None for each in given):
        return [None] * len(_edges(node))
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        filled = [_zeros(node, index, device) if each is None else each for index, each in enumerate(given)]
        results = node.apply(*filled)
        results = results if isinstance(results, tuple) else (results,)
        return [result for result, needed in zip(results, node.needs_input_grad, strict=False) if needed]
    results = node(*given)
    results = results if isinstance(results, tuple) else (results,)
    return [result for result, edge in zip(results, node.next_functions, strict=True) if edge[0] is not None]


def _zeros(node: Any, index: int, device: torch.device) -> Tensor:
    """Of the shape of an output that nothing was made of."""
    expected = node._input_metadata[index]
    return torch.zeros(expected.shape, dtype=expected.dtype, device=device)


def _as_expected(gradient: Tensor, node: Any, index: int) -> Tensor:
    """In the shape and type of what it is the gradient of, as torch's engine makes it."""
    expected = node._input_metadata[index]
    if gradient.shape != torch.Size(expected.shape):
        gradient = gradient.sum_to_size(expected.shape)
    return gradient if gradient.dtype == expected.dtype else gradient.to(expected.dtype)


def _add(sums: dict[int, Tensor], index: int, gradient: Tensor) -> None:
    sums[index] = sums[index] + gradient if index in sums else gradient
