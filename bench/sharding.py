"""Checkpoints of sharded models: lorajob's beside accelerate's FSDP2 with its full state dict, taking turns in one run.

    python bench/sharding.py                        2 and 4 processes, a dense model and two mixtures of experts
    python bench/sharding.py --json > figures.json

Both sides train the same random model with the same adapter for one step, so that there are moments to save, and then
save several times. Prints one Markdown table, of medians: what rank 0 is sent by the others for a checkpoint, its
seconds, how much host memory a rank takes for it above what it had, the peak of rank 0 in all, and what is written.

accelerate shards nothing on a CPU and trains copies of the model instead, without a word. So it is told that it has
GPUs, once it has chosen gloo and the CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 1, "hidden": 64},
    "dense-small": {"layers": 4, "hidden": 256},
    "dense": {"layers": 8, "hidden": 512},
    "moe-small": {"layers": 2, "hidden": 128, "experts": 16},
    "moe": {"layers": 4, "hidden": 512, "experts": 64},
    "moe-large": {"layers": 8, "hidden": 512, "experts": 128},
}
SIDES = ("accelerate", "lorajob")
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0}
VOCABULARY = 4096
TOKENS = 128


def write_model(name: str, folder: Path) -> int:
    """A random model of Qwen3's or GLM-4.5's architecture in fp32; returns its bytes."""
    from transformers import AutoModelForCausalLM, Glm4MoeConfig, Qwen3Config

    size = SIZES[name]
    hidden = size["hidden"]
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": size["layers"],
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": hidden // 8,
        "tie_word_embeddings": False,
    }
    if "experts" in size:
        routed = {"n_routed_experts": size["experts"], "num_experts_per_tok": 8, "moe_intermediate_size": hidden // 2}
        config: Any = Glm4MoeConfig(**common, **routed, n_shared_experts=1, first_k_dense_replace=1)
    else:
        config = Qwen3Config(**common)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return sum(item.nbytes for item in model.parameters())


class Received(TorchDispatchMode):
    """Counts the bytes that this rank is sent by the others in collective operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # it comes back as what it is made of
            return NotImplemented
        result = function(*args, **(kwargs or {}))
        if function.namespace in ("c10d", "_c10d_functional"):
            self.bytes += _received(function._opname, args, result)
        return result


def _received(name: str, args: Any, result: Any) -> int:
    if name in ("wait_tensor", "_wrap_tensor_autograd", "barrier"):
        return 0
    if name == "all_gather_into_tensor":
        return _bytes(result) - _bytes(args[0])
    if name in ("allgather_", "_allgather_base_", "gather_"):
        return max(0, _bytes(args[0]) - _bytes(args[1]))
    if name in ("broadcast_", "scatter_", "recv_"):
        return _bytes(args[0])
    raise RuntimeError(f"who is sent how much by {name} is not known here")


def _bytes(tensors: Any) -> int:
    return sum(item.nbytes for item in tree_leaves(tensors) if isinstance(item, torch.Tensor))


def measured(save: Callable[[], None]) -> dict[str, float]:
    """One checkpoint: what rank 0 received, seconds until all ranks go on, memory above what there was."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _status("VmRSS"), time.perf_counter()
    with Received() as received:
        save()
    dist.barrier()
    seconds, peak = time.perf_counter() - began, _status("VmHWM")
    mine = {"received_bytes": received.bytes, "risen_bytes": peak - before, "peak_bytes": peak}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {
        "seconds": seconds,
        "received_bytes": everyone[0]["received_bytes"],
        "risen_bytes": everyone[0]["risen_bytes"],
        "others_risen_bytes": max(each["risen_bytes"] for each in everyone[1:]),
        "peak_bytes": everyone[0]["peak_bytes"],
    }


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def lorajob_side(model: Path, root: Path) -> Callable[[], None]:
    """A run as the supervisor starts it, one step in."""
    from lorajob_runtime.contract import spec
    from lorajob_runtime.contract.layout import RunFolder
    from lorajob_runtime.data.tokens import TokenRows
    from lorajob_runtime.train import checkpointing, session
    from lorajob_runtime.train.job import TrainJob
    from lorajob_runtime.train.step import train_step

    folder = RunFolder(root)
    if dist.get_rank() == 0:
        folder.data.mkdir(parents=True)
        ranks = dist.get_world_size()
        ids = np.random.default_rng(0).integers(3, VOCABULARY, size=ranks * TOKENS).astype(np.int32)
        rows = TokenRows(ids, np.ones(len(ids), dtype=bool), np.arange(ranks + 1, dtype=np.int64) * TOKENS)
        rows.save(folder.train_rows)
        folder.data_report.write_text(json.dumps({"fingerprint": "random"}))
        folder.sample_prompts.write_text(json.dumps({"stop_ids": [], "samples": []}))
    dist.barrier()
    run = {
        "name": "bench",
        "model": {"name": str(model)},
        "lora": LORA,
        "train": {"batchSize": 1, "gradientAccumulation": 1, "precision": "fp32", "sharding": "fsdp"},
    }
    plan = TrainJob(
        spec=spec.parse(run),
        model_path=str(model),
        model_source=str(model),
        model_revision="",
        base_name=str(model),
        device="cpu",
        resume_step=None,
        attempt=1,
    )
    started = session.start(plan, folder, session.join_process_group(plan))
    train_step(started, 1)

    def save() -> None:
        with checkpointing.Writer(started) as checkpoints:
            checkpoints.save(1, evaluation_pending=False)

    return save


def accelerate_side(model: Path, root: Path) -> Callable[[], None]:
    """PEFT's adapter under accelerate's FSDP2, one step in; the adapter's targets are lorajob's."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from transformers import AutoModelForCausalLM

    from lorajob_runtime.contract.spec import LoraSpec
    from lorajob_runtime.train.lora import attach

    os.environ["ACCELERATE_USE_FSDP"] = "true"
    os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState()
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    base.requires_grad_(False)
    base.config.use_cache = False
    tuned: Any = attach.attach(base, LoraSpec(**LORA), seed=42, experts=True)
    # cpu_ram_efficient_loading fails on GLM's buffers, and is about loading
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        state_dict_type="FULL_STATE_DICT",
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[type(base.model.layers[0]).__name__],
        cpu_ram_efficient_loading=False,
    )
    accelerator = Accelerator(fsdp_plugin=plugin)
    optimizer = torch.optim.AdamW([item for item in tuned.parameters() if item.requires_grad], lr=1e-4)
    tuned, optimizer = accelerator.prepare(tuned, optimizer)
    tokens = torch.randint(3, VOCABULARY, (1, TOKENS), generator=torch.Generator().manual_seed(dist.get_rank()))
    accelerator.backward(tuned(input_ids=tokens, labels=tokens).loss)
    optimizer.step()
    if not any(isinstance(item, DTensor) for item in tuned.parameters()):
        raise RuntimeError("accelerate has sharded nothing")
    return lambda: accelerator.save_state(str(root), safe_serialization=True)


def work(side: str, model: Path, root: Path, saves: int) -> None:
    """What every process does; rank 0 writes the figures of each save into `root`.json."""
    dist.init_process_group("gloo")
    save = {"lorajob": lorajob_side, "accelerate": accelerate_side}[side](model, root)
    # the first one makes folders, and loads what is needed for it
    figures = [measured(save) for _ in range(saves + 1)][1:]
    if dist.get_rank() == 0:
        newest = max(root.rglob("step-*"), default=root)
        written = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        root.with_suffix(".json").write_text(json.dumps([each | {"written_bytes": written} for each in figures]))
    dist.barrier()
    dist.destroy_process_group()


def run_side(side: str, model: Path, processes: int, saves: int, scratch: Path) -> list[dict[str, float]]:
    root = scratch / side
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    torchrun += ["--nproc-per-node", str(processes), "--max-restarts", "0"]
    worker = [__file__, "--work", side, "--folders", str(model), str(root), "--saves", str(saves)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *torchrun, *worker], env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} on {processes} processes failed:\n{done.stderr[-4000:]}")
    found: list[dict[str, float]] = json.loads(root.with_suffix(".json").read_text())
    shutil.rmtree(root)
    return found


def compare(name: str, processes: int, rounds: int, saves: int) -> list[dict[str, Any]]:
    """The medians of both sides on one model, after rounds in which they took turns."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model_bytes = write_model(name, scratch / "model")
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                found[side] += run_side(side, scratch / "model", processes, saves, scratch)
    about = {"model": name, "model_bytes": model_bytes, "processes": processes}
    return [
        about | {"side": side} | {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for side, figures in found.items()
    ]


def row(result: dict[str, Any]) -> str:
    def mebibytes(name: str) -> str:
        return f"{result[name] / 2**20:.0f}"

    model = f"{result['model']}, {mebibytes('model_bytes')} MiB"
    moved = f"{mebibytes('received_bytes')} | {result['seconds']:.2f}"
    memory = f"{mebibytes('risen_bytes')} | {mebibytes('others_risen_bytes')} | {mebibytes('peak_bytes')}"
    return f"| {model} | {result['processes']} | {result['side']} | {moved} | {memory} | {mebibytes('written_bytes')} |"


HEAD = """| model | processes | | gathered MiB | s | memory, rank 0 MiB | other ranks MiB | peak MiB | written MiB |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["dense", "moe", "moe-large"])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--saves", type=int, default=3, help="checkpoints of a side in a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--work", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folders", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, *arguments.folders, arguments.saves)
        return
    if not arguments.json:
        print(HEAD, flush=True)
    results = []
    for name in arguments.models:
        for processes in arguments.processes:
            found = compare(name, processes, arguments.rounds, arguments.saves)
            results += found
            if not arguments.json:
                print("\n".join(row(result) for result in found), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
