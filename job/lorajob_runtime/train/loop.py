"""The training loop, top to bottom."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from lorajob_runtime.contract import identity, layout
from lorajob_runtime.contract.errors import StoppedError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.chat import tiktoken_tokenizer
from lorajob_runtime.models import end_tokens
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import heartbeat, memory_budget, samples, session
from lorajob_runtime.train.job import TrainPlan
from lorajob_runtime.train.lora import attach
from lorajob_runtime.train.samples import SamplePrompts
from lorajob_runtime.train.session import Session
from lorajob_runtime.train.step import StepResult, evaluate, train_step


def train(plan: TrainPlan, folder: RunFolder, *, clock: Callable[[], float] = time.perf_counter) -> None:
    """Trains from the plan's checkpoint, or from nothing, to the last step.

    Raises StoppedError after a stop request, DivergedError, and what loading raises.
    """
    accelerator = session.meet(plan)
    with heartbeat.beating(folder):
        run = session.start(plan, folder, accelerator)
    prompts = samples.load(folder.data / "samples.json")
    total = run.steps.total_steps
    if run.owes_look and not _look(run, prompts, run.step):
        _stop(run.step, total)
    if run.step < total:
        run.doing(f"makes step {run.step + 1}")
    for step in range(run.step + 1, total + 1):
        began = clock()
        result = train_step(run, step)
        _report_step(run, step, result, seconds=clock() - began)
        stopping = result.stop_requested and step < total
        is_time_to_look = run.steps.ends_epoch(step) or step == total
        # before a look that takes its time, which the log says was made when it was
        is_saved = step % plan.spec.train.save_steps == 0 or step == total or stopping
        if is_saved:
            save(run, step, owes_look=is_time_to_look)
        if is_time_to_look and not stopping and not _look(run, prompts, step):
            stopping = True
            if not is_saved:
                save(run, step, owes_look=True)
        if stopping:
            _stop(step, total)
    _wait_for_everyone()


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


def _look(run: Session, prompts: SamplePrompts, step: int) -> bool:
    """Evaluation and sample answers, where the run has any. False when a request to stop came before they were made."""
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
    wanted = run.plan.spec.report.samples
    asked = prompts if step else dataclasses.replace(prompts, prompts=prompts.prompts[: wanted.before])
    if asked.prompts and wanted.every == "epoch":
        run.doing(f"writes sample answers {when}")
        if not samples.sample(run, asked, step):
            return False
    run.report("report", name="looked", step=step)
    return True


def save(run: Session, step: int, *, owes_look: bool) -> None:
    """The checkpoint after `step`, written by the one rank that has the event log: it needs nothing from the others."""
    if run.log is None:
        return
    path = checkpoint.save(run.folder, step, lambda draft: _write(run, step, draft, owes_look=owes_look))
    run.log.append("checkpoint", step=step, path=str(path.relative_to(run.folder.root)))
    run.log.sync()


def _write(run: Session, step: int, path: Path, *, owes_look: bool) -> None:
    save_file(attach.adapter_state(run.model), path / layout.ADAPTER_WEIGHTS, metadata={"format": "pt"})
    attach.adapter_config(run.model, run.plan.base_name).save_pretrained(str(path))
    moments: dict[str, torch.Tensor] = {}
    for name, parameter in attach.trained(run.model).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            moments[f"{moment}/{name}"] = run.optimizer.state[parameter][moment].detach().cpu().contiguous()
    save_file(moments, path / layout.OPTIMIZER)
    _write_tokenizer(Path(run.plan.model_path), path)
    end_tokens.write(Path(run.plan.model_path), path, samples.load(run.folder.data / "samples.json").stop_ids)
    (path / layout.STATE).write_text(json.dumps(_state(run, step, owes_look=owes_look), indent=2))


def _write_tokenizer(model: Path, path: Path) -> None:
    """The model's tokenizer, so that the adapter is asked with the one it was trained with."""
    if (known := tiktoken_tokenizer.found(model)) is not None:
        # the form that needs no code of the model's repository
        tiktoken_tokenizer.load(model, known).save_pretrained(str(path))
    for name in identity.TOKENIZER_FILES:
        if (model / name).is_file() and not (path / name).exists():
            shutil.copyfile(model / name, path / name)


def _state(run: Session, step: int, *, owes_look: bool) -> dict[str, Any]:
    """Where training stands. Which rows come next, and every random draw, follow from the step and the seed."""
    return {
        "step": step,
        "epoch": run.steps.epoch_of(step),
        "total_steps": run.steps.total_steps,
        "finished": step == run.steps.total_steps,
        "seed": run.steps.seed,
        "decided": asdict(run.decided),
        "owes_look": owes_look,
        **identity.for_state(run.made_with),
        "model_source": run.plan.model_source,
        "model_revision": run.plan.model_revision,
    }


def _wait_for_everyone() -> None:
    if dist.is_initialized():
        dist.barrier()
