"""One optimizer step, and the loss of rows without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    for index, micro_batch in enumerate(_micro_batches(session, session.rows, rows)):
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
    for micro_batch in _micro_batches(session, rows, range(len(rows))):
        heartbeat.beat(session.folder)
        total += summed_loss(session, rows, micro_batch)
    _sum_over_ranks(total)
    session.model.train()
    return float(total) / rows.target_tokens


def _micro_batches(session: Session, rows: TokenRows, chosen: Sequence[int]) -> list[list[int]]:
    """This rank's portions of the chosen rows. Where weights are gathered all ranks have equally many, some empty."""
    shares = batches.spread(chosen, rows.lengths, session.ranks)
    budget = session.decided.token_budget
    mine = batches.fold(shares[session.rank], rows.lengths, budget)
    if not session.sharding.is_sharded:
        return mine
    most = max(len(batches.fold(share, rows.lengths, budget)) for share in shares)
    return mine + [[]] * (most - len(mine))


def summed_loss(session: Session, rows: TokenRows, micro_batch: Sequence[int]) -> Tensor:
    """Sum of the target tokens' cross entropies (fp32 scalar) of rows laid end to end; of no rows 0, after all work."""
    if not micro_batch:
        return 0.0 * _token_loss(session, np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int64), [1])
    return _token_loss(session, *pack(rows, micro_batch))


def _token_loss(session: Session, ids: np.ndarray, positions: np.ndarray, lengths: list[int]) -> Tensor:
    """The sum over the tokens at `positions`, each foretold by the one before it."""
    device = session.accelerator.device
    tokens = torch.from_numpy(ids).to(device, torch.long, non_blocking=True).unsqueeze(0)
    before = torch.from_numpy(np.maximum(positions - 1, 0)).to(device, non_blocking=True)
    labels = torch.from_numpy(ids[positions]).to(device, torch.long, non_blocking=True)
    inputs = model_module.packed_inputs(tokens, lengths)
    if not session.decided.plain_head:
        return loss.logits_loss(session.model(**inputs).logits[0].index_select(0, before), labels)
    return model_module.behind_decoder(
        session.model,
        inputs,
        lambda hidden, weight: loss.head_loss(hidden[0].index_select(0, before), weight, labels),
    )


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
