"""One optimizer step, and the loss of rows without one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lorajob_runtime.contract.errors import DivergedError
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.system import device_errors
from lorajob_runtime.train import batches, heartbeat, loss, schedule
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.lora import fp8_product, groups
from lorajob_runtime.train.parallel import memory_budget, sharding
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
    """Makes one optimizer step: the mean loss over all its target tokens, across ranks and micro-batches.

    Where memory is not enough for a micro-batch the step starts again with smaller ones; OutOfMemoryError when there
    are none. Raises DivergedError when the loss or the gradient's norm is not finite; the weights stay as before it.
    """
    train = session.job.spec.train
    rows = session.steps.rows_of(step)
    targets = _target_tokens(session.rows, rows)

    def gradients(sums: Tensor) -> int:
        session.gradients.zero()
        for index, micro_batch in enumerate(_micro_batches(session, session.rows, rows)):
            # a step may be hours of micro-batches
            heartbeat.beat(session.folder)
            session.masks.start(train.seed, step, session.rank, index)
            if not _add_gradients(session, micro_batch, sums):
                return _tokens(session.rows, micro_batch)
        sums[1] += session.folder.stop_request.exists()
        return 0

    sums = _within_memory(session, session.rows, gradients, f"step {step}")
    session.gradients.sum_over_ranks()
    # not the loss: what goes back through the model would be rounded to bf16 with it, all by the same factor
    session.gradients.divide(targets)
    mean_loss = float(sums[0]) / targets
    grad_norm = session.gradients.clip(train.max_grad_norm)
    if not np.isfinite(mean_loss) or not np.isfinite(grad_norm):
        raise diverged(session, f"loss is {mean_loss} and the gradient's norm {grad_norm} at step {step}", step - 1)
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
def evaluate(session: Session, rows: TokenRows, step: int) -> float | None:
    """Mean loss over the target tokens of `rows` after `step`, shared out over the ranks, without dropout.

    None when the run was asked to stop before it was known.
    """
    session.model.eval()

    def losses(sums: Tensor) -> int:
        for micro_batch in _micro_batches(session, rows, range(len(rows))):
            heartbeat.beat(session.folder)
            if _is_asked_to_stop(session):
                sums[1] += 1
                return 0
            if not _add_loss(session, rows, micro_batch, sums):
                return _tokens(rows, micro_batch)
        return 0

    sums = _within_memory(session, rows, losses, f"the evaluation after step {step}")
    session.model.train()
    if sums[1]:
        return None
    mean_loss = float(sums[0]) / rows.target_tokens
    if not math.isfinite(mean_loss):
        raise diverged(session, f"the evaluation loss is {mean_loss} after step {step}", step)
    return mean_loss


def _is_asked_to_stop(session: Session) -> bool:
    """Whether a stop was requested; where weights are gathered all ranks must decide alike at each micro-batch."""
    asked = session.folder.stop_request.exists()
    if not session.sharding.is_sharded:
        return asked
    count = torch.tensor(float(asked), device=session.accelerator.device)
    _sum_over_ranks(count)
    return bool(count)


def diverged(session: Session, what: str, updates: int) -> DivergedError:
    """The error for a number that is not finite, after so many updates of the adapter."""
    broken = next(
        (name for name, item in session.model.named_parameters() if not item.requires_grad and not _is_finite(item)),
        None,
    )
    if broken is not None:
        name = broken.removeprefix("base_model.model.").replace(".base_layer", "")
        return DivergedError(
            f"{what}: the model's weights are broken, {name} has numbers that are not finite",
            hint="fetch the weights again, or use another model.revision or train.precision",
        )
    if updates == 0:
        return DivergedError(
            f"{what}, before the adapter was changed: it comes from the weights or the precision",
            hint="set train.precision to fp32, or look at the rows of that step",
        )
    return DivergedError(f"{what}: training diverged")


def _is_finite(tensor: Tensor) -> bool:
    if fp8_product.of(tensor) is not None:
        # something else stands for it
        return True
    # of a sharded weight this rank's part; and no copy of it, since memory may be short
    part = sharding.local(tensor)
    if not part.is_floating_point() or not part.numel():
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(part))


def _within_memory(session: Session, rows: TokenRows, work: Callable[[Tensor], int], where: str) -> Tensor:
    """The sums over all ranks of what `work` adds to a float64 [3]; repeated on all ranks until memory is enough.

    `work` returns the tokens of the micro-batch that memory was not enough for on this rank, 0 where it was. All ranks
    come here, so none waits for one that gave up. float64, as it also carries counts of ranks.
    """
    while True:
        sums = torch.zeros(3, dtype=torch.float64, device=session.accelerator.device)
        too_large = work(sums)
        sums[2] = too_large > 0
        _sum_over_ranks(sums)
        if not sums[2]:
            return sums
        groups.forget(session.model)
        memory_budget.collect(session.accelerator.device)
        largest = torch.tensor(too_large, device=session.accelerator.device)
        if dist.is_initialized():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        session.lower_token_budget(int(largest), int(rows.lengths.max()), where)


def _add_gradients(session: Session, micro_batch: Sequence[int], sums: Tensor) -> bool:
    """Adds a micro-batch's gradients to the adapter's and its loss to `sums`. False where memory was not enough."""
    try:
        summed = summed_loss(session, session.rows, micro_batch)
        summed.backward()
        sums[0] += summed.detach()
    except Exception as error:  # noqa: BLE001 what is no lack of memory is raised again
        _raise_unless_short(session, error)
        return False
    return True


def _add_loss(session: Session, rows: TokenRows, micro_batch: Sequence[int], sums: Tensor) -> bool:
    try:
        sums[0] += summed_loss(session, rows, micro_batch)
    except Exception as error:  # noqa: BLE001 what is no lack of memory is raised again
        _raise_unless_short(session, error)
        return False
    return True


def _raise_unless_short(session: Session, error: Exception) -> None:
    """Raises an error again that smaller micro-batches do not help with.

    Where weights are gathered the other ranks wait for this one in the middle of a layer, and cannot start again.
    """
    if session.sharding.is_sharded or not device_errors.is_out_of_memory(error):
        raise error


def _tokens(rows: TokenRows, micro_batch: Sequence[int]) -> int:
    return int(rows.lengths[list(micro_batch)].sum())


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
    """The sum over the tokens at `positions`, each predicted from the one before it."""
    device = session.accelerator.device
    tokens = model_module.on_device(ids.astype(np.int64), device).unsqueeze(0)
    before = model_module.on_device(np.maximum(positions - 1, 0), device)
    labels = model_module.on_device(ids[positions].astype(np.int64), device)
    inputs = model_module.packed_inputs(tokens, lengths)
    if not session.decided.plain_head:
        return loss.logits_loss(session.model(**inputs).logits[0].index_select(0, before), labels)
    return model_module.forward_with_head(
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
