"""What is decided at the first start and kept in every checkpoint: precision, batch, token budget, placement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from accelerate import Accelerator
from torch import nn

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import TrainSpec
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.models.placement import GPU_TOKENS, Placement
from lorajob_runtime.system import environment
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.base_model.forward import Traits
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.lora import dropout
from lorajob_runtime.train.parallel import broadcast, memory_budget, sharding


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """Fixed at the first start and kept in every checkpoint: with other ones a resumed run would round differently.

    `functions`: the fused functions that the base model computes by; none in a checkpoint that knows of none.
    """

    world_size: int
    global_batch: int
    precision: Precision
    token_budget: int
    asked_tokens: int | None = None
    """What the spec asked for as token budget; what memory was not enough for since then is not in it."""
    gradient_checkpointing: bool
    recompute_every: int = 1
    """With gradient checkpointing: 1, all layers are computed again, as in version 0.1; 2, every second one…"""
    packs: bool
    plain_head: bool
    sharded: bool = False
    replicas: int = 1
    experts: bool = False
    functions: Sequence[str] = ()
    draws: int = dropout.FIRST
    """Version of what dropout draws. Checkpoints of version 0.1 have none."""

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Decisions:
        """Of a checkpoint. Raises ConfigError for one of a later version that decided what this one does not know."""
        unknown = sorted(saved.keys() - {item.name for item in fields(cls)})
        if unknown or saved.get("draws", dropout.FIRST) > dropout.NEWEST:
            name = (*unknown, "draws")[0]
            raise ConfigError(
                f"the checkpoint is of a later version of lorajob: this one does not know its {name!r}",
                hint="go on with that version, or train under another name",
            )
        return cls(**saved)

    def asked_again(self, train: TrainSpec) -> Decisions:
        """The same for a run that goes on, with the token budget of its spec where that asks for another one now."""
        asked = train.tokens_per_micro_batch
        if asked == self.asked_tokens:
            return self
        return replace(self, asked_tokens=asked, token_budget=asked if asked and self.packs else self.token_budget)


def decide(
    job: TrainJob,
    accelerator: Accelerator,
    model: nn.Module,
    rows: TokenRows,
    precision: Precision,
    traits: Traits,
    placed: Placement,
    functions: Sequence[str],
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
        asked_tokens=train.tokens_per_micro_batch,
    )
    mine = Decisions(
        world_size=world,
        global_batch=train.batch_size * train.gradient_accumulation * world,
        precision=precision,
        token_budget=outcome.token_budget if traits.packs else 1,
        asked_tokens=train.tokens_per_micro_batch,
        gradient_checkpointing=outcome.gradient_checkpointing,
        recompute_every=outcome.recompute_every,
        packs=traits.packs,
        plain_head=traits.plain_head,
        sharded=placed.sharded,
        replicas=placed.replicas,
        experts=placed.experts,
        functions=functions,
        draws=dropout.newest(accelerator.device),
    )
    return broadcast.broadcast_object(mine)
