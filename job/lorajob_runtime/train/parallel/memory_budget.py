"""How many tokens go through the model at a time, and whether activations are saved or recomputed.

Not estimated from the architecture but measured: one forward pass over a short document counts the bytes that autograd
keeps. Decided once, at the first start, since another answer on resume would round differently.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, UntypedStorage, nn

from lorajob_runtime.models.memory_plan import ACTIVATION_SHARE, GRADIENT_BYTES, OPTIMIZER_BYTES, RECOMPUTE_EVERY
from lorajob_runtime.system import cgroup
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.parallel import sharding

CPU_TOKENS = 640
"""Tokens of a micro-batch on a CPU: more does not fit its caches and was slower, fewer leaves its cores idle."""
CHECKPOINTED_SHARE = 0.1
"""Most that a layer's input is of what the layer keeps: the attention's and the MLP's inputs alone are ten times it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBudget:
    """`token_budget`: tokens of a micro-batch. The bytes are what the decision rests on.

    `recompute_every`: with gradient checkpointing, 1: all layers are computed again, 2: every second one…
    """

    token_budget: int
    gradient_checkpointing: bool
    recompute_every: int
    activation_bytes_per_token: int
    free_bytes: int


def decide(
    *,
    kept_bytes_per_token: int,
    layers: int,
    free_bytes: int,
    longest_row: int,
    device_tokens: int,
    asked: Literal["auto"] | bool,
    asked_tokens: int | None = None,
) -> MemoryBudget:
    """Keeps activations when a micro-batch of the longest row, or of what fills a CPU, fits; `asked` outranks that.

    Else as few of the `layers` are computed again as leave enough room for that: of these their inputs are kept, each
    no more than a tenth of what a layer keeps, and the activations of one at a time. `asked_tokens` is the token budget
    that the spec asks for, in place of what would fill the memory.
    """
    affordable = int(free_bytes * ACTIVATION_SHARE / max(1, kept_bytes_per_token))
    enough = max(longest_row, min(device_tokens, CPU_TOKENS) if asked_tokens is None else asked_tokens)
    checkpointing = affordable < enough if asked == "auto" else asked
    every = 1
    if checkpointing:
        whole = affordable
        for every in RECOMPUTE_EVERY if asked == "auto" else (1,):
            affordable = int(whole / _kept_share(max(1, layers), every))
            if affordable >= enough:
                break
    budget = min(device_tokens, affordable) if asked_tokens is None else asked_tokens
    return MemoryBudget(
        token_budget=max(budget, longest_row) if asked_tokens is None else budget,
        gradient_checkpointing=checkpointing,
        recompute_every=every,
        activation_bytes_per_token=kept_bytes_per_token,
        free_bytes=free_bytes,
    )


def _kept_share(layers: int, every: int) -> float:
    """What is kept of all layers' activations, at the most, when one layer in `every` is computed again."""
    recomputed = -(-layers // every)
    return (layers - recomputed + 1 + CHECKPOINTED_SHARE * recomputed) / layers


def kept_bytes_per_token(model: nn.Module, *, tokens: int = 128) -> int:
    """Bytes that autograd keeps for the backward pass, a token: counted over each storage once, weights left out.

    Sharded weights are whole only while their layer works: their storage is empty when the pass is over. Called by all
    ranks together.
    """
    seen: dict[int, UntypedStorage] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = sharding.local(tensor).untyped_storage()
        seen[storage.data_ptr()] = storage
        return tensor

    ids = torch.ones((1, tokens), dtype=torch.long, device=next(model.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kept = model_module.hidden_states(model, ids, documents=[tokens])
    # some weights stay gathered until the backward pass, so it is now that they are known
    weights = {sharding.local(item).untyped_storage().data_ptr() for item in model.parameters()}
    total = sum(storage.nbytes() for address, storage in seen.items() if address not in weights)
    del kept
    return total // tokens


def free_bytes(device: torch.device, processes_here: int) -> int:
    """Memory that one training process may still take: of its GPU, or its share of the host's."""
    if device.type == "cuda":
        # what torch keeps for later counts as free
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return cgroup.host_free_bytes() // processes_here


def least_over_ranks(size_bytes: int, device: torch.device) -> int:
    """The smallest of all ranks' numbers: what all of them have. Called by all ranks together."""
    if not dist.is_initialized():
        return size_bytes
    least = torch.tensor(size_bytes, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def collect(device: torch.device) -> None:
    """Frees what a pass left behind that memory was not enough for."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def halved(token_budget: int, too_large: int, longest_row: int) -> int | None:
    """The token budget after memory was not enough for a micro-batch of `too_large` tokens; None: there is no smaller.

    Half of what failed, but never less than the longest row, which is not cut in two.
    """
    smaller = max(longest_row, min(token_budget, too_large) // 2)
    return smaller if smaller < min(token_budget, too_large) else None


def reserved_bytes(model: nn.Module) -> int:
    """What training takes later with any batch size: gradients and moments, and sharded weights while gathered."""
    trained = sum(item.numel() for item in model.parameters() if item.requires_grad)
    return trained * (GRADIENT_BYTES + OPTIMIZER_BYTES) + sharding.gathered_bytes(model)


def peak_bytes(device: torch.device) -> int:
    """Peak memory of this process so far: of the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
