"""Everything that one attempt at training holds: the data, the model with its adapter, and what was decided."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lorajob_runtime.contract import identity, layout
from lorajob_runtime.contract.errors import OutOfMemoryError
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.contract.identity import Identity
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import TrainSpec
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.models.placement import Placement
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import decisions
from lorajob_runtime.train import precision as precisions
from lorajob_runtime.train.base_model import attention
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.base_model.forward import Traits
from lorajob_runtime.train.decisions import Decisions
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.lora import attach, fp8_product, groups, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks
from lorajob_runtime.train.parallel import broadcast, memory_budget, placement, sharding
from lorajob_runtime.train.parallel.gradients import FlatGradients
from lorajob_runtime.train.parallel.sharding import Sharding
from lorajob_runtime.train.schedule import Schedule

_LOADING_LIMIT = timedelta(hours=2)
"""NCCL's own ten minutes are less than a node without cached weights needs more than one with them."""


@dataclass(kw_only=True, eq=False)
class Session:
    """One attempt. `step` is the last step done before it; `evaluation_pending`: its evaluation and samples are not.

    Nothing of it changes but the token budget among the decisions, where memory turns out to be less than it seemed.
    """

    job: TrainJob
    folder: RunFolder
    accelerator: Accelerator
    rows: TokenRows
    eval_rows: TokenRows | None
    made_with: Identity
    model: nn.Module
    masks: DropoutMasks
    gradients: FlatGradients
    optimizer: torch.optim.AdamW
    steps: Schedule
    decided: Decisions
    sharding: Sharding
    log: EventLog | None
    step: int
    evaluation_pending: bool

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def ranks(self) -> int:
        return int(self.accelerator.num_processes)

    def report(self, event: str, **values: Any) -> None:
        """Appends to the event log, on the one rank that has it."""
        if self.log is not None:
            self.log.append(event, **values)

    def lower_token_budget(self, too_large: int, longest_row: int, where: str) -> None:
        """Goes on with smaller micro-batches after one of `too_large` tokens found no memory; called by all ranks.

        Raises OutOfMemoryError when none can be smaller: it was one row, or no more than the longest.
        """
        budget = memory_budget.halved(self.decided.token_budget, too_large, longest_row)
        if budget is None:
            raise OutOfMemoryError(
                f"the memory is not enough for a micro-batch of {too_large} tokens at {where}, "
                f"and none can be smaller: the longest row has {longest_row}"
            )
        self.decided = dataclasses.replace(self.decided, token_budget=budget)
        text = f"out of memory at {where} with a micro-batch of {too_large} tokens: going on with {budget} at the most"
        self.report("report", name="warning", message=text)

    def doing(self, what: str) -> None:
        """Says what takes its time, until the next step."""
        self.report("report", name="doing", message=what)


def join_process_group(job: TrainJob) -> Accelerator:
    """Joins the other training processes; returns when all of them have joined.

    They wait as long for each other as one of them may take to load the model.
    """
    # fp32 is taken where bf16 cannot be, or by who asked for its exactness: not to be rounded to TF32's ten bits
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    # long sums of the adapter's gradients are split, and their parts shall not be rounded to bf16
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    accelerator = Accelerator(
        cpu=job.device == "cpu" or not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LOADING_LIMIT)],
    )
    accelerator.wait_for_everyone()
    return accelerator


def start(job: TrainJob, folder: RunFolder, accelerator: Accelerator) -> Session:
    """Loads everything but the checkpoint that the job names, of which it reads the state alone.

    Raises ConfigError or ModelError for what cannot be trained, StorageError for a checkpoint that cannot be read.
    """
    job = broadcast.from_first_node(job, folder, accelerator)
    train = job.spec.train
    saved = None if job.resume_step is None else checkpoint.read_state(folder.checkpoint(job.resume_step))
    if train.base_compute is not None:
        fp8_product.check(accelerator.device)
    made_with = _identity(job, folder, saved)
    broadcast.check_same_weights(str(made_with.weights), job, accelerator)
    decided = None if saved is None else Decisions.read(saved["decided"]).asked_again(train)
    chosen = (
        precisions.Choice(precision=decided.precision)
        if decided
        else precisions.choose(train.precision, accelerator.device)
    )
    precision = chosen.precision
    placed = _placement(job, accelerator, precision, decided)
    rows = TokenRows.load(folder.train_rows)
    loaded = _load_model(job, accelerator, precision, placed, decided)
    if decided is None:
        decided = decisions.decide(
            job, accelerator, loaded.model, rows, precision, loaded.traits, placed, loaded.functions
        )
    loaded.masks.version = decided.draws
    if decided.gradient_checkpointing:
        model_module.recompute(
            loaded.base, every=decided.recompute_every, draws_random_numbers=loaded.draws_random_numbers
        )
    adapter = attach.trained(loaded.model)
    session = Session(
        job=job,
        folder=folder,
        accelerator=accelerator,
        rows=rows,
        eval_rows=TokenRows.load(folder.eval_rows) if folder.eval_rows.exists() else None,
        made_with=made_with,
        model=loaded.model,
        masks=loaded.masks,
        gradients=FlatGradients(loaded.trained),
        optimizer=torch.optim.AdamW(
            adapter.values(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
        ),
        steps=_schedule(train, len(rows), decided.global_batch),
        decided=decided,
        sharding=sharding.over(accelerator.num_processes, sharded=placed.sharded, replicas=placed.replicas),
        log=EventLog(folder.events) if accelerator.is_main_process else None,
        step=job.resume_step or 0,
        evaluation_pending=saved is None or (checkpoint.evaluation_pending(saved) and job.evaluation_pending),
    )
    _report_start(session, loaded.warnings, chosen)
    return session


@dataclass(frozen=True, kw_only=True, slots=True)
class _LoadedModel:
    """The base model, and the same with its adapter. `trained`: its parameters, in their order in memory.

    `warnings` are PEFT's.
    """

    base: PreTrainedModel
    model: nn.Module
    masks: DropoutMasks
    trained: list[nn.Parameter]
    traits: Traits
    functions: Sequence[str]
    draws_random_numbers: bool
    warnings: list[str]


def _load_model(
    job: TrainJob, accelerator: Accelerator, precision: Precision, placed: Placement, decided: Decisions | None
) -> _LoadedModel:
    """Loads the base model and attaches the adapter. What holds for the model is tried where it is not decided yet."""
    sharded = sharding.over(accelerator.num_processes, sharded=placed.sharded, replicas=placed.replicas)
    base = model_module.load(Path(job.model_path), job.spec.model, precision, accelerator.device, sharded)
    functions = decided.functions if decided else broadcast.broadcast_object(model_module.own_functions(base))
    model_module.use_functions(base, functions)
    traits = Traits(packs=decided.packs, plain_head=decided.plain_head) if decided else model_module.probe(base)
    draws = model_module.draws_random_numbers(base)
    warnings: list[str] = []
    seed = job.spec.train.seed
    model = attach.attach(base, job.spec.lora, seed=seed, experts=placed.experts, warn=warnings.append)
    if isinstance(model_module.head(model), BaseTunerLayer):
        # an adapter on the head: its loss must go through it
        traits = dataclasses.replace(traits, plain_head=False)
    masks = DropoutMasks()
    linear.fuse(model, masks)
    if job.spec.train.base_compute is not None:
        fp8_product.quantize(model)
    groups.find(model, lambda: model_module.try_pass(model))
    sharding.reshard(model)
    trained = groups.lay_out(model)
    model.train()
    return _LoadedModel(
        base=base,
        model=model,
        masks=masks,
        trained=trained,
        traits=traits,
        functions=functions,
        draws_random_numbers=draws,
        warnings=warnings,
    )


def _schedule(train: TrainSpec, rows: int, global_batch: int) -> Schedule:
    return Schedule(
        rows=rows, global_batch=global_batch, epochs=train.epochs, max_steps=train.max_steps, seed=train.seed
    )


def _placement(job: TrainJob, accelerator: Accelerator, precision: Precision, decided: Decisions | None) -> Placement:
    """As decided at the first start. On another number of GPUs the weights may lie otherwise; the adapter stays."""
    placed = placement.choose(job, accelerator, precision, experts=None if decided is None else decided.experts)
    if decided is None:
        return placed
    same = decided.world_size == accelerator.num_processes
    return dataclasses.replace(
        placed,
        sharded=decided.sharded if same else placed.sharded,
        replicas=decided.replicas if same else placed.replicas,
    )


def _identity(job: TrainJob, folder: RunFolder, saved: dict[str, Any] | None) -> Identity:
    """What this attempt trains with: the data as it was prepared, and the model's files.

    Raises when the checkpoint to resume from, whose state is `saved`, was made with others.
    """
    report = json.loads(folder.data_report.read_text())
    mine = identity.with_data(identity.of_model(Path(job.model_path)), report)
    if saved is not None:
        result = f"checkpoint {layout.step_name(saved['step'])}"
        identity.refuse_others(identity.in_state(saved), mine, result=result)
    return mine


def _report_start(session: Session, warnings: list[str], chosen: precisions.Choice) -> None:
    session.report(
        "report", name="targets", **asdict(attach.report(session.model, dropout=session.job.spec.lora.dropout))
    )
    for warning in warnings:
        session.report("report", name="warning", message=warning)
    if not session.decided.experts and placement.wants_experts(session.job):
        text = "routed experts train no adapter: the GPUs have no memory for it; lora.experts: true trains one anyway"
        session.report("report", name="warning", message=text)
    if not session.decided.packs:
        text = "documents cannot share a micro-batch in this model, so each has one of its own, and training is slow"
        session.report("report", name="warning", message=text)
    session.report(
        "report",
        name="decided",
        **asdict(session.decided),
        device=session.accelerator.device.type,
        processes=session.ranks,
        total_steps=session.steps.total_steps,
        resumed_from=session.job.resume_step,
        shards=session.sharding.shards,
        rows=len(session.rows),
        base_compute=session.job.spec.train.base_compute,
        product_milliseconds=chosen.milliseconds,
        attention=attention.backend(session.model, model_module.DTYPES[session.decided.precision]),
    )
