"""Answers with a sharded model whose layers are gathered for every token, or kept; arguments: MODEL, OUTPUT_FOLDER."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import CommDebugMode

from lorajob_runtime.contract.spec import LoraSpec, ModelSpec
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.lora import attach
from lorajob_runtime.train.parallel import sharding


def main(arguments: list[str]) -> None:
    path, output = map(Path, arguments)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    spread = sharding.over(dist.get_world_size(), sharded=True, replicas=1)
    base = model_module.load(path, ModelSpec(name="m"), "fp32", torch.device("cpu"), spread)
    model = attach.attach(base, LoraSpec(dropout=0.0), seed=1, experts=True)
    layer = sum(item.numel() * item.element_size() for item in base.model.layers[0].parameters())
    answers = []
    # the head stays whole from the first answer on, so that one does not count
    for spare_bytes in (0, 0, layer, 2**30):
        ids = torch.arange(3, 9).unsqueeze(0) + rank
        with (
            torch.no_grad(),
            model_module.generating(model),
            sharding.kept_whole(model, spare_bytes) as kept,
            CommDebugMode() as counted,
        ):
            tokens = model.generate(  # type: ignore[operator]
                input_ids=ids, max_new_tokens=8, do_sample=False, eos_token_id=None, synced_gpus=True
            )
        held = sharding.local_bytes(model)
        gathered = sum(
            count for name, count in counted.get_comm_counts().items() if "allgather" in str(name).replace("_", "")
        )
        answers.append({"kept": kept, "tokens": tokens.tolist(), "held_bytes": held, "gathers": gathered})
    (output / f"rank-{rank}.json").write_text(json.dumps(answers[1:]))
    dist.barrier()
    dist.destroy_process_group()
