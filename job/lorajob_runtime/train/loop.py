"""The training loop, top to bottom."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import NoReturn

import torch.distributed as dist

from lorajob_runtime.contract.errors import StoppedError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.train import checkpoint_schedule, checkpointing, heartbeat, samples, session
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.parallel import memory_budget
from lorajob_runtime.train.samples import SamplePrompts
from lorajob_runtime.train.session import Session
from lorajob_runtime.train.step import StepResult, evaluate, train_step


def train(job: TrainJob, folder: RunFolder, *, clock: Callable[[], float] = time.perf_counter) -> None:
    """Trains from the job's checkpoint, or from nothing, to the last step.

    Raises StoppedError after a stop request, DivergedError, and what loading raises.
    """
    accelerator = session.join_process_group(job)
    with heartbeat.beating(folder):
        run = session.start(job, folder, accelerator)
        if run.job.resume_step is not None:
            checkpointing.load(run, run.job.resume_step)
    prompts = samples.load(folder.sample_prompts)
    if run.evaluation_pending and not evaluate_and_sample(run, prompts, run.step):
        _stop(run.step, run.steps.total_steps)
    with checkpointing.Writer(run) as checkpoints:
        last = _train(run, prompts, checkpoints, clock)
    if last < run.steps.total_steps:
        _stop(last, run.steps.total_steps)
    _wait_for_everyone()


def _train(run: Session, prompts: SamplePrompts, checkpoints: checkpointing.Writer, clock: Callable[[], float]) -> int:
    """Makes the steps that are left, until the last one or a stop request. Returns the last step that was made."""
    total = run.steps.total_steps
    if run.step < total:
        run.doing(f"makes step {run.step + 1}")
    for step in range(run.step + 1, total + 1):
        began = clock()
        result = train_step(run, step)
        _report_step(run, step, result, seconds=clock() - began)
        checkpoints.raise_failure()
        stopping = result.stop_requested and step < total
        at_epoch_end = run.steps.ends_epoch(step) or step == total
        every = run.job.spec.train.save_steps
        is_saved = checkpoint_schedule.is_due(step, every=every, total=total, stopping=stopping)
        if is_saved:
            checkpoints.save(step, evaluation_pending=at_epoch_end)
        if at_epoch_end and not stopping and not evaluate_and_sample(run, prompts, step):
            stopping = True
            if not is_saved:
                checkpoints.save(step, evaluation_pending=True)
        if stopping:
            return step
    return total


def _stop(step: int, total: int) -> NoReturn:
    _wait_for_everyone()
    where = f"stopped at step {step} of {total}, with a checkpoint" if step else "stopped before the first step"
    raise StoppedError(where)


def _report_step(run: Session, step: int, result: StepResult, *, seconds: float) -> None:
    run.report(
        "step",
        step=step,
        total_steps=run.steps.total_steps,
        epoch=round(run.steps.epoch_of(step), 4),
        loss=result.loss,
        grad_norm=result.grad_norm,
        learning_rate=result.learning_rate,
        tokens=result.tokens,
        target_tokens=result.target_tokens,
        tokens_per_second=round(result.tokens / seconds, 1),
        memory_bytes=memory_budget.peak_bytes(run.accelerator.device),
    )


def evaluate_and_sample(run: Session, prompts: SamplePrompts, step: int) -> bool:
    """Evaluates and writes sample answers, where the run has any. False when it was asked to stop before both ended."""
    when = f"after step {step}" if step else "before training"
    if run.eval_rows is not None:
        run.doing(f"evaluates {when}")
        mean_loss = evaluate(run, run.eval_rows, step)
        if mean_loss is None:
            return False
        run.report(
            "evaluation",
            step=step,
            loss=mean_loss,
            perplexity=math.exp(min(mean_loss, 700.0)),
            target_tokens=run.eval_rows.target_tokens,
        )
    wanted = run.job.spec.report.samples
    asked = prompts if step else dataclasses.replace(prompts, prompts=prompts.prompts[: wanted.before])
    if asked.prompts and wanted.every == "epoch":
        run.doing(f"writes sample answers {when}")
        if not samples.sample(run, asked, step):
            return False
    run.report("report", name="looked", step=step)
    return True


def _wait_for_everyone() -> None:
    if dist.is_initialized():
        dist.barrier()
