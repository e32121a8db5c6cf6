"""How the frozen weights lie on the ranks: whole on each, or each layer in parts that are gathered when it works.

FSDP2 as transformers applies it while it loads: a rank reads only its part of every tensor, and buffers stay whole. The
adapter is attached after that and is never sharded, so gradients, optimizer and checkpoints are those of any other run,
and saving gathers nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners import tuners_utils
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lorajob_runtime.models import memory_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """Weights in `shards` parts, with `replicas` such sets of ranks; shards x replicas ranks in all.

    With several replicas, one a node, the weights that a layer needs never come from another node.
    """

    shards: int = 1
    replicas: int = 1

    @property
    def is_sharded(self) -> bool:
        return self.shards > 1

    def options(self, device: torch.device) -> dict[str, Any]:
        """What `from_pretrained` needs for it."""
        if not self.is_sharded:
            # straight to the GPU: no rank holds the model in host memory
            return {"device_map": {"": device}} if device.type == "cuda" else {}
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(fsdp_size=self.shards, dp_replicate_size=self.replicas)}


REPLICATED = Sharding()


def over(ranks: int, *, sharded: bool, replicas: int) -> Sharding:
    """The sharding of `ranks` ranks. Sets of ranks that do not divide them are one set."""
    if not sharded or ranks == 1:
        return REPLICATED
    if replicas < 1 or ranks % replicas or ranks == replicas:
        replicas = 1
    return Sharding(shards=ranks // replicas, replicas=replicas)


@contextlib.contextmanager
def whole_shapes() -> Iterator[None]:
    """Has PEFT size an adapter that is attached meanwhile by the whole weights.

    It takes parts on a mesh that has replicas for those of tensor parallelism, where a layer works on its part alone.
    """
    before = tuners_utils._torch_supports_distributed
    tuners_utils._torch_supports_distributed = False
    try:
        yield
    finally:
        tuners_utils._torch_supports_distributed = before


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers that this rank holds."""
    return sum(local(item).nbytes for item in [*model.parameters(), *model.buffers()])


@contextlib.contextmanager
def kept_whole(model: nn.Module, spare_bytes: int) -> Iterator[int]:
    """Has as many layers as there is memory for stay whole once they have worked, and yields how many they are.

    For answers, where a layer works once a token: only the first one gathers it then. Afterwards they are in parts
    again. Called by all ranks together, with the same number of bytes.
    """
    kept: list[FSDPModule] = []
    for name, module in model.named_modules():
        if isinstance(module, FSDPModule) and name.rpartition(".")[0].endswith(".layers"):
            weights = [item for item in cast(nn.Module, module).parameters() if isinstance(item, DTensor)]
            spare_bytes -= sum(item.numel() * item.element_size() - local(item).nbytes for item in weights)
            if spare_bytes < 0:
                break
            kept.append(module)
    for layer in kept:
        layer.set_reshard_after_forward(False)
    try:
        yield len(kept)
    finally:
        for layer in kept:
            layer.set_reshard_after_forward(True)
            layer.reshard()


def reshard(model: nn.Module) -> None:
    """Has every rank hold its parts alone again: after a pass without a backward one the ends are still whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gathered_bytes(model: nn.Module) -> int:
    """Bytes of weights that are whole for a while in a forward and backward pass, beside this rank's parts.

    The embedding, the final norm and the head stay whole from the first to the last layer's work; of the layers,
    as many of the largest as the estimate counts.
    """
    layers: dict[str, int] = {}
    edges = 0
    for name, item in model.named_parameters():
        if isinstance(item, DTensor):
            size = item.numel() * item.element_size()
            before, found, after = name.partition(".layers.")
            if found:
                layer = f"{before}.{after.partition('.')[0]}"
                layers[layer] = layers.get(layer, 0) + size
            else:
                edges += size
    return edges + memory_plan.GATHERED_LAYERS * max(layers.values(), default=0)
