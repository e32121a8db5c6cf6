"""How many tokens go through the model at a time, and whether activations are kept or made again.

Not estimated from the architecture but measured: one forward pass over a short document counts the bytes that autograd
keeps. Decided once, at the first start, since another answer on resume would round differently.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lorajob_runtime.train import model as model_module

CPU_TOKENS = 640
"""Tokens of a micro-batch on a CPU: more does not fit its caches and was slower, fewer leaves its cores idle."""
GPU_TOKENS = 16_384
"""Tokens of a micro-batch on a GPU: enough to fill it."""
SHARE = 0.6
"""Share of the free memory that kept activations may take; the rest is for the loss, workspaces and fragmentation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryDecision:
    """`token_budget`: tokens of a micro-batch. The bytes are what the decision rests on."""

    token_budget: int
    gradient_checkpointing: bool
    activation_bytes_per_token: int
    free_bytes: int


def decide(
    *, kept_bytes_per_token: int, free_bytes: int, longest_row: int, device_tokens: int, asked: Literal["auto"] | bool
) -> MemoryDecision:
    """Keeps activations when a micro-batch of the longest row, or of what fills a CPU, fits; `asked` outranks that."""
    affordable = int(free_bytes * SHARE / max(1, kept_bytes_per_token))
    enough = max(longest_row, min(device_tokens, CPU_TOKENS))
    checkpointing = affordable < enough if asked == "auto" else asked
    budget = device_tokens if checkpointing else min(device_tokens, affordable)
    return MemoryDecision(
        token_budget=max(budget, longest_row),
        gradient_checkpointing=checkpointing,
        activation_bytes_per_token=kept_bytes_per_token,
        free_bytes=free_bytes,
    )


def kept_bytes_per_token(model: nn.Module, *, tokens: int = 128) -> int:
    """Bytes that autograd keeps for the backward pass, a token: counted over each storage once, weights left out."""
    device = next(model.parameters()).device
    weights = {item.untyped_storage().data_ptr() for item in model.parameters()}
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.ones((1, tokens), dtype=torch.long, device=device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kept = model_module.hidden_states(model, ids, documents=[tokens])
    total = sum(seen.values())
    del kept
    return total // tokens


def free_bytes(device: torch.device, processes_here: int) -> int:
    """Memory that one training process may still take: of its GPU, or its share of the host's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_free_bytes() // processes_here


def host_free_bytes() -> int:
    """What the host or the container still has: the smaller of MemAvailable and the cgroup's limit less its use.

    Files that the container has read count as its use until their pages are wanted; they are free memory all the same.
    """
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
        free = min(free, int(text) - int(used.read_text()) + files)
    return max(0, free)


def peak_bytes(device: torch.device) -> int:
    """Peak memory of this process so far: of the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
