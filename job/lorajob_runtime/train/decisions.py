"""What is decided at the first start and kept in every checkpoint: precision, batch, token budget, placement."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator
from torch import nn

from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.models.placement import GPU_TOKENS, Placement
from lorajob_runtime.system import environment
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.base_model.forward import Traits
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.parallel import broadcast, memory_budget, sharding


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """Fixed at the first start and kept in every checkpoint: with other ones a resumed run would round differently."""

    world_size: int
    global_batch: int
    precision: Precision
    token_budget: int
    gradient_checkpointing: bool
    packs: bool
    plain_head: bool
    sharded: bool = False
    replicas: int = 1
    experts: bool = False


def decide(
    job: TrainJob,
    accelerator: Accelerator,
    model: nn.Module,
    rows: TokenRows,
    precision: Precision,
    traits: Traits,
    placed: Placement,
) -> Decisions:
    """Rank 0 decides for all, since they must not differ, by the memory of the rank that has the least."""
    train = job.spec.train
    world = accelerator.num_processes
    kept = memory_budget.kept_bytes_per_token(model)
    sharding.reshard(model)
    free = memory_budget.free_bytes(accelerator.device, environment.torchrun().ranks_here(world))
    outcome = memory_budget.decide(
        kept_bytes_per_token=kept,
        layers=model_module.layers(model),
        free_bytes=memory_budget.least_over_ranks(
            max(0, free - memory_budget.reserved_bytes(model)), accelerator.device
        ),
        longest_row=int(rows.lengths.max()),
        device_tokens=memory_budget.CPU_TOKENS if accelerator.device.type == "cpu" else GPU_TOKENS,
        asked=train.gradient_checkpointing,
    )
    mine = Decisions(
        world_size=world,
        global_batch=train.batch_size * train.gradient_accumulation * world,
        precision=precision,
        token_budget=outcome.token_budget if traits.packs else 1,
        gradient_checkpointing=outcome.gradient_checkpointing,
        packs=traits.packs,
        plain_head=traits.plain_head,
        sharded=placed.sharded,
        replicas=placed.replicas,
        experts=placed.experts,
    )
    return broadcast.broadcast_object(mine)
