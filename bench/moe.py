"""LoRA on routed experts: the factored forward and backward against PEFT's own, taking turns in one run.

    python bench/moe.py                        64 experts, hidden 512, 4 layers; 128 and 1024 tokens

Prints one Markdown table: milliseconds of a forward and backward pass, by the clock and of the processor (which other
programs on the machine hardly change when --threads is 1), and the memory that a pass needs above the model's own. All
sides hold the same weights, and the two with experts give the same gradients, which is checked first. The adapter is on
attention, shared and routed experts; without the latter one sees what theirs cost.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.train.lora import attach, experts, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks


def model(arguments: argparse.Namespace, dtype: torch.dtype, *, experts: bool) -> nn.Module:
    """A GLM-shaped model with its adapter, the same for every call."""
    torch.manual_seed(1)
    config = Glm4MoeConfig(
        vocab_size=512,
        hidden_size=arguments.hidden,
        intermediate_size=4 * arguments.hidden,
        moe_intermediate_size=arguments.hidden // 2,
        num_hidden_layers=arguments.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=arguments.hidden // 8,
        n_routed_experts=arguments.experts,
        num_experts_per_tok=8,
        n_shared_experts=1,
        first_k_dense_replace=0,
    )
    base = Glm4MoeForCausalLM(config).to(dtype)
    base.requires_grad_(False)
    base.config.use_cache = False
    tuned = attach.attach(base, LoraSpec(dropout=0.0), seed=2, experts=experts)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return tuned.train()


def fuse_linears(tuned: nn.Module) -> nn.Module:
    """Everything but the routed experts as lorajob computes it, so that only those differ."""
    own = experts.factor
    experts.factor = lambda _: 0
    try:
        linear.fuse(tuned, DropoutMasks())
    finally:
        experts.factor = own
    return tuned


def one_pass(tuned: nn.Module, tokens: torch.Tensor, hidden_size: int) -> Callable[[], None]:
    direction = torch.randn(hidden_size, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        tuned.zero_grad(set_to_none=True)
        hidden = tuned.get_base_model().model(input_ids=tokens, use_cache=False).last_hidden_state
        (hidden.float() @ direction).tanh().mean().backward()

    return run


def milliseconds(run: Callable[[], None]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    began = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - began[0]), 1000 * (time.process_time() - began[1])


def peak_bytes(run: Callable[[], None]) -> int:
    """Resident memory at its highest during one pass, less that before it (Linux resets the mark on demand)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def check_same(one: nn.Module, other: nn.Module) -> float:
    """The norm of the gradients' difference, as a share of their norm."""
    ours, theirs = (torch.cat([each.grad.flatten() for each in attach.trained(side).values()]) for side in (one, other))
    return float((ours - theirs).norm() / theirs.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = torch.float32 if arguments.precision == "fp32" else torch.bfloat16
    factored = model(arguments, dtype, experts=True)
    linear.fuse(factored, DropoutMasks())
    sides = {
        "attention and shared only": fuse_linears(model(arguments, dtype, experts=False)),
        "PEFT's ParamWrapper": fuse_linears(model(arguments, dtype, experts=True)),
        "factored": factored,
    }
    print("| tokens | | ms | processor's ms | memory of a pass MiB |\n|---|---|---|---|---|")
    for count in arguments.tokens:
        tokens = torch.randint(0, 512, (1, count), generator=torch.Generator().manual_seed(count))
        runs = {name: one_pass(tuned, tokens, arguments.hidden) for name, tuned in sides.items()}
        for run in runs.values():
            run()
        difference = check_same(factored, sides["PEFT's ParamWrapper"])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(milliseconds(run))
        medians = {name: [statistics.median(kind) for kind in zip(*times[name], strict=True)] for name in runs}
        for name, run in runs.items():
            memory = max(peak_bytes(run) for _ in range(2))
            clock, processor = medians[name]
            print(f"| {count} | {name} | {clock:.0f} | {processor:.0f} | {memory / 2**20:.0f} |", flush=True)
        slow, fast = medians["PEFT's ParamWrapper"], medians["factored"]
        ratios = f"{slow[0] / fast[0]:.2f}x faster than PEFT by the clock, {slow[1] / fast[1]:.2f}x by the processor"
        print(f"\n{count} tokens: {ratios}; gradients differ by {difference:.1e} of their norm\n", flush=True)


if __name__ == "__main__":
    main()
