"""Writes the checkpoint after a step (adapter, optimizer, tokenizer, where training stands), and loads one again."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorajob_runtime.contract import identity, layout
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.data.chat import tiktoken_tokenizer
from lorajob_runtime.models import end_tokens
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import samples
from lorajob_runtime.train.host_copies import HostCopies
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


class Writer:
    """Writes a session's checkpoints in a thread, one at a time, while training goes on; on the rank that has the log.

    What training changes is copied first, so that a checkpoint is that of its step. One is seen, and in the event log,
    when it is whole. The end of the `with` statement waits for the last one.
    """

    def __init__(self, run: Session) -> None:
        self._run = run
        self._copies = HostCopies(run.accelerator.device)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread is not None:
            # what ended training outranks what the disk may say
            self._thread.join()

    def save(self, step: int, *, evaluation_pending: bool) -> None:
        """Begins the checkpoint after `step`, after the end of the one before. Raises what that one failed with."""
        run = self._run
        if run.log is None:
            return
        self.wait()
        parameters = attach.trained(run.model)
        state = {name: run.optimizer.state[parameter] for name, parameter in parameters.items()}
        moments = {f"{moment}/{name}": state[name][moment] for name in state for moment in MOMENTS}
        copies = self._copies.take({**parameters, **moments})
        content = _Content(
            adapter={name: copies[name] for name in parameters},
            moments={name: copies[name] for name in moments},
            state=json.dumps(_state(run, step, evaluation_pending=evaluation_pending), indent=2),
        )
        # not a daemon: what is being written when the interpreter ends is still finished
        self._thread = threading.Thread(target=self._save, args=(run.log, step, content), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when no checkpoint is being written. Raises StorageError and the like for one that could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raises what the last checkpoint failed with, where it already has."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _save(self, log: EventLog, step: int, content: _Content) -> None:
        try:
            self._copies.wait()
            folder = self._run.folder
            path = checkpoint.save(folder, step, lambda draft: _write(self._run, content, draft))
            log.append("checkpoint", step=step, path=str(path.relative_to(folder.root)))
            log.sync()
        except BaseException as error:  # noqa: BLE001 raised again where training can end by it
            self._failure = error


MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """What a checkpoint holds that training changes: the adapter and its moments by name, and state.json."""

    adapter: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    state: str


def _write(run: Session, content: _Content, path: Path) -> None:
    adapter = attach.adapter_state(run.model, content.adapter)
    save_file(adapter, path / layout.ADAPTER_WEIGHTS, metadata={"format": "pt"})
    attach.adapter_config(run.model, run.job.base_name).save_pretrained(str(path))
    save_file(content.moments, path / layout.OPTIMIZER)
    _write_tokenizer(Path(run.job.model_path), path)
    end_tokens.write(Path(run.job.model_path), path, samples.load(run.folder.sample_prompts).stop_ids)
    (path / layout.STATE).write_text(content.state)


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
