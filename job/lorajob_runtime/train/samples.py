"""Answers to a few prompts, so that a person sees what training does."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from torch import Tensor
from transformers import StoppingCriteria

from lorajob_runtime.data.chat.reasoning import MARK_TOKENS, Reply, opens_thought, split
from lorajob_runtime.data.chat.tokenizer import decode, decode_answer, load_tokenizer
from lorajob_runtime.models import memory_plan
from lorajob_runtime.system import device_errors, environment
from lorajob_runtime.train import answering, heartbeat
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.parallel import memory_budget, sharding
from lorajob_runtime.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePrompts:
    """Prompts as token ids, and the tokens that end an answer."""

    stop_ids: list[int]
    prompts: list[dict[str, Any]]


def load(path: Path) -> SamplePrompts:
    """The prompts that data preparation chose."""
    content = json.loads(path.read_text())
    return SamplePrompts(stop_ids=content["stop_ids"], prompts=content["samples"])


def sample(session: Session, prompts: SamplePrompts, step: int) -> bool:
    """Answers every prompt greedily, each rank its part, and reports them in order as `sample` events.

    False, and nothing is reported, when the run was asked to stop meanwhile.
    """
    mine = prompts.prompts[session.rank :: session.ranks]
    heartbeat.beat(session.folder)
    with model_module.generating(session.model), sharding.kept_whole(session.model, _spare_bytes(session)):
        answers = _answer(session, prompts, mine)
    is_stopped = torch.tensor(float(session.folder.stop_request.exists()), device=session.accelerator.device)
    if dist.is_initialized():
        dist.all_reduce(is_stopped)
    if is_stopped:
        return False
    numbered = [(session.rank + session.ranks * index, answer) for index, answer in enumerate(answers)]
    everyone: list[tuple[int, Reply]] = gather_object(numbered)
    for index, reply in sorted(everyone, key=lambda each: each[0]):
        prompt = prompts.prompts[index]
        session.report(
            "sample",
            step=step,
            index=index,
            prompt=prompt["prompt"],
            output=reply.answer,
            reference=prompt["reference"],
            **({"thought": reply.reasoning} if reply.reasoning else {}),
        )
    return True


def _spare_bytes(session: Session) -> int:
    """Memory that sharded layers may take while answering: the least that a rank has, since all gather together."""
    if not session.sharding.is_sharded:
        return 0
    device = session.accelerator.device
    free = memory_budget.free_bytes(device, environment.torchrun().ranks_here(session.ranks))
    return memory_budget.least_over_ranks(int(memory_plan.ACTIVATION_SHARE * free), device)


def _answer(session: Session, prompts: SamplePrompts, chosen: list[dict[str, Any]]) -> list[Reply]:
    """The answers to the chosen prompts, fewer at a time where memory is not enough for all of them together."""
    try:
        return _answer_together(session, prompts, chosen)
    except Exception as error:
        if session.sharding.is_sharded or len(chosen) < 2 or not device_errors.is_out_of_memory(error):
            raise
    # outside of the except: the error holds what the failed attempt made
    memory_budget.collect(session.accelerator.device)
    middle = len(chosen) // 2
    return _answer(session, prompts, chosen[:middle]) + _answer(session, prompts, chosen[middle:])


@torch.no_grad()
def _answer_together(session: Session, prompts: SamplePrompts, chosen: list[dict[str, Any]]) -> list[Reply]:
    if not chosen and not session.sharding.is_sharded:
        return []
    # where weights are gathered all ranks work together: one with nothing to answer answers the first prompt again
    asked = chosen or prompts.prompts[:1]
    trusted = session.job.spec.model.trust_remote_code
    tokenizer = load_tokenizer(Path(session.job.model_path), trust_remote_code=trusted)
    answers = answering.answer(
        session.model,
        [item["prompt_ids"] for item in asked],
        device=session.accelerator.device,
        stop_ids=prompts.stop_ids,
        max_new_tokens=session.job.spec.report.samples.max_new_tokens,
        stopping_criteria=[_SignOfLife(session)],
        do_sample=False,
        synced_gpus=session.sharding.is_sharded,
    )
    replies = []
    for item, answer in zip(chosen, answers, strict=False):
        thinking = opens_thought(decode(tokenizer, item["prompt_ids"][-MARK_TOKENS:]))
        replies.append(split(decode_answer(tokenizer, answer), thinking=thinking))
    return replies


class _SignOfLife(StoppingCriteria):
    """Shows signs of life while answers are made, slow where each token gathers weights, and ends them on request."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._last = time.monotonic()

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        if time.monotonic() - self._last > heartbeat.EVERY_SECONDS:
            heartbeat.beat(self._session.folder)
            self._last = time.monotonic()
        is_asked = self._session.folder.stop_request.exists()
        return torch.full((input_ids.shape[0],), is_asked, dtype=torch.bool, device=input_ids.device)
