"""One optimizer step, and the loss of rows without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.exits import DivergedError
from lorajob_runtime.train import batches, heartbeat, loss, schedule
from lorajob_runtime.train import model as model_module
from lorajob_runtime.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step was. `tokens` are all real input tokens of it over all ranks, `target_tokens` those with loss."""

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    target_tokens: int
    stop_requested: bool


def train_step(session: Session, step: int) -> StepResult:
    """Makes one optimizer step: the mean loss over its target tokens, whatever rank and micro-batch they are in.

    Raises DivergedError when the loss or the gradient's norm is not finite; the weights are then those before it.
    """
    train = session.plan.spec.train
    rows = session.steps.rows_of(step)
    targets = _target_tokens(session.rows, rows)
    session.gradients.zero()
    # float64: it also carries the count of ranks that were asked to stop
    sums = torch.zeros(2, dtype=torch.float64, device=session.accelerator.device)
    share = batches.spread(rows, session.rows.lengths, session.ranks)[session.rank]
    for index, micro_batch in enumerate(batches.fold(share, session.rows.lengths, session.decided.token_budget)):
        session.masks.start(train.seed, step, session.rank, index)
        summed = summed_loss(session, session.rows, micro_batch)
        (summed / targets).backward()
        sums[0] += summed.detach()
    sums[1] += session.folder.stop_request.exists()
    session.gradients.sum_over_ranks()
    _sum_over_ranks(sums)
    mean_loss = float(sums[0]) / targets
    grad_norm = session.gradients.clip(train.max_grad_norm)
    if not np.isfinite(mean_loss) or not np.isfinite(grad_norm):
        raise DivergedError(
            f"loss is {mean_loss} and the gradient's norm {grad_norm} at step {step}: training diverged"
        )
    rate = schedule.learning_rate(train, step=step, total_steps=session.steps.total_steps)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    session.optimizer.step()
    return StepResult(
        loss=mean_loss,
        grad_norm=grad_norm,
        learning_rate=rate,
        tokens=int(session.rows.lengths[rows].sum()),
        target_tokens=targets,
        stop_requested=float(sums[1]) > 0,
    )


@torch.no_grad()
def evaluate(session: Session, rows: TokenRows) -> float:
    """Mean loss over the target tokens of `rows`, shared out over the ranks, without dropout."""
    session.model.eval()
    total = torch.zeros(1, dtype=torch.float64, device=session.accelerator.device)
    share = batches.spread(range(len(rows)), rows.lengths, session.ranks)[session.rank]
    for micro_batch in batches.fold(share, rows.lengths, session.decided.token_budget):
        heartbeat.beat(session.folder)
        total += summed_loss(session, rows, micro_batch)
    _sum_over_ranks(total)
    session.model.train()
    return float(total) / rows.target_tokens


def summed_loss(session: Session, rows: TokenRows, micro_batch: Sequence[int]) -> Tensor:
    """Sum of the target tokens' cross entropies (fp32 scalar) of rows laid end to end."""
    device = session.accelerator.device
    ids, positions, lengths = pack(rows, micro_batch)
    tokens = torch.from_numpy(ids).to(device, torch.long, non_blocking=True).unsqueeze(0)
    before = torch.from_numpy(positions - 1).to(device, non_blocking=True)
    labels = torch.from_numpy(ids[positions]).to(device, torch.long, non_blocking=True)
    if not session.decided.plain_head:
        inputs = model_module.packed_inputs(tokens, lengths)
        return loss.logits_loss(session.model(**inputs).logits[0].index_select(0, before), labels)
    hidden = model_module.hidden_states(session.model, tokens, lengths)[0].index_select(0, before)
    weight = cast(Tensor, model_module.head(session.model).weight)
    return loss.head_loss(hidden, weight, labels)


def pack(rows: TokenRows, micro_batch: Sequence[int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows end to end: their token ids [T], the positions of the target tokens in that, and each row's length."""
    parts = [rows.row(row) for row in micro_batch]
    ids = np.concatenate([part[0] for part in parts])
    targets = np.concatenate([part[1] for part in parts])
    return ids, np.flatnonzero(targets), [len(part[0]) for part in parts]


def _target_tokens(rows: TokenRows, chosen: Sequence[int]) -> int:
    return sum(int(np.count_nonzero(rows.row(row)[1])) for row in chosen)


def _sum_over_ranks(values: Tensor) -> None:
    if dist.is_initialized():
        dist.all_reduce(values)
