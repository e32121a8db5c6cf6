"""Loads a model sharded over all processes and writes what this rank held; arguments: MODEL, OUTPUT_FOLDER."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open

from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.parallel import sharding


class PeakOfOwnMemory:
    """The most that this process had in memory that is not a mapped file, in bytes, above what it had at the start."""

    def __init__(self) -> None:
        self._start = self._now()
        self._peak = self._start
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ending.wait(0.001):
            self._peak = max(self._peak, self._now())

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    def end(self) -> int:
        self._ending.set()
        self._thread.join()
        return max(self._peak, self._now()) - self._start


def main(arguments: list[str]) -> None:
    path, output = map(Path, arguments)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    spread = sharding.over(ranks, sharded=True, replicas=1)
    watch = PeakOfOwnMemory()
    model = model_module.load(path, ModelSpec(name="m"), "fp32", torch.device("cpu"), spread)
    peak = watch.end()
    buffers = {name: item for name, item in model.named_buffers() if name.endswith("e_score_correction_bias")}
    digest = hashlib.sha256(b"".join(buffers[name].numpy().tobytes() for name in sorted(buffers))).hexdigest()
    (output / f"rank-{rank}.json").write_text(
        json.dumps(
            {
                "all_bytes": sum(item.numel() * item.element_size() for item in model.parameters()),
                "local_bytes": sum(sharding.local(item).nbytes for item in model.parameters()),
                "peak_bytes": peak,
                "gathered_bytes": sharding.gathered_bytes(model),
                "buffers": digest,
                "stored_buffers": _stored(path),
                "count": len(buffers),
            }
        )
    )
    dist.barrier()
    dist.destroy_process_group()


def _stored(path: Path) -> str:
    """The same digest over what the file holds."""
    found = {}
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as content:
            for name in content.keys():  # noqa: SIM118 it is no mapping
                if name.endswith("e_score_correction_bias"):
                    found[name.replace("block_sparse_moe", "mlp")] = content.get_tensor(name).numpy().tobytes()
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()
