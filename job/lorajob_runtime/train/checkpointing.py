"""Writes the checkpoint after a step (adapter, optimizer, tokenizer, where training stands), and loads one again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorajob_runtime.contract import identity, layout
from lorajob_runtime.data.chat import tiktoken_tokenizer
from lorajob_runtime.models import end_tokens
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import samples
from lorajob_runtime.train.lora import attach
from lorajob_runtime.train.session import Session


def load(run: Session, step: int) -> None:
    """Puts the adapter and the optimizer of the checkpoint after `step` into a session that has just been started."""
    path = run.folder.checkpoint(step)
    attach.load_adapter(run.model, load_file(path / layout.ADAPTER_WEIGHTS))
    moments = load_file(path / layout.OPTIMIZER)
    for name, parameter in attach.trained(run.model).items():
        run.optimizer.state[parameter] = {
            "step": torch.tensor(float(run.step), device=parameter.device),
            "exp_avg": moments[f"exp_avg/{name}"].to(parameter.device),
            "exp_avg_sq": moments[f"exp_avg_sq/{name}"].to(parameter.device),
        }


def save(run: Session, step: int, *, evaluation_pending: bool) -> None:
    """The checkpoint after `step`, written by the one rank that has the event log: it needs nothing from the others."""
    if run.log is None:
        return
    path = checkpoint.save(
        run.folder, step, lambda draft: _write(run, step, draft, evaluation_pending=evaluation_pending)
    )
    run.log.append("checkpoint", step=step, path=str(path.relative_to(run.folder.root)))
    run.log.sync()


def _write(run: Session, step: int, path: Path, *, evaluation_pending: bool) -> None:
    save_file(attach.adapter_state(run.model), path / layout.ADAPTER_WEIGHTS, metadata={"format": "pt"})
    attach.adapter_config(run.model, run.job.base_name).save_pretrained(str(path))
    moments: dict[str, torch.Tensor] = {}
    for name, parameter in attach.trained(run.model).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            moments[f"{moment}/{name}"] = run.optimizer.state[parameter][moment].detach().cpu().contiguous()
    save_file(moments, path / layout.OPTIMIZER)
    _write_tokenizer(Path(run.job.model_path), path)
    end_tokens.write(Path(run.job.model_path), path, samples.load(run.folder.sample_prompts).stop_ids)
    (path / layout.STATE).write_text(json.dumps(_state(run, step, evaluation_pending=evaluation_pending), indent=2))


def _write_tokenizer(model: Path, path: Path) -> None:
    """The model's tokenizer, so that the adapter is asked with the one it was trained with."""
    if (known := tiktoken_tokenizer.found(model)) is not None:
        # the form that needs no code of the model's repository
        tiktoken_tokenizer.load(model, known).save_pretrained(str(path))
    for name in identity.TOKENIZER_FILES:
        if (model / name).is_file() and not (path / name).exists():
            shutil.copyfile(model / name, path / name)


def _state(run: Session, step: int, *, evaluation_pending: bool) -> dict[str, Any]:
    """Where training stands. Which rows come next, and every random draw, follow from the step and the seed."""
    return {
        "step": step,
        "epoch": run.steps.epoch_of(step),
        "total_steps": run.steps.total_steps,
        "finished": step == run.steps.total_steps,
        "seed": run.steps.seed,
        "decided": asdict(run.decided),
        "evaluation_pending": evaluation_pending,
        # what version 0.1 calls it, which may be the one that goes on from here
        "owes_look": evaluation_pending,
        **identity.for_state(run.made_with),
        "model_source": run.job.model_source,
        "model_revision": run.job.model_revision,
    }
