"""Speed and memory of whole optimizer steps on random weights: lorajob in some settings, the tutorials' recipe, Liger.

python -m gpu.speed dense   Qwen3-8B
python -m gpu.speed glm     two layers of GLM-4.5-Air with adapters on all experts
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Glm4MoeConfig, PreTrainedConfig

from gpu import trainer
from gpu.random_model import TINY, qwen3, started
from gpu.results import HAS_GPU, attempt, folder, say, synchronize
from lorajob_runtime.models import memory_plan
from lorajob_runtime.models.architecture import read as read_architecture
from lorajob_runtime.train.session import Session
from lorajob_runtime.train.step import train_step

PEAK_FLOPS = 989e12
"""bf16 products a second of an H100 or H200 as NVIDIA states them, without sparsity: what MFU is a share of."""

ROWS: dict[str, tuple[int, float]] = {"rows of 80": (80, 0.5), "rows of 600": (600, 0.35), "rows of 1024": (1024, 0.0)}
"""Mean length of rows, and the spread of its logarithm."""

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without dropout": {"lora": {"dropout": 0.0}},
    "activations recomputed": {"train": {"gradientCheckpointing": True}},
}
CARD_VARIANTS: dict[str, dict[str, Any]] = {"base products in FP8": {"train": {"baseCompute": "fp8"}}}
"""What a CPU refuses."""


def lengths_of(name: str, count: int = 64) -> list[int]:
    """So many row lengths of a set; short ones on a CPU."""
    mean, spread = ROWS[name]
    mean = mean if HAS_GPU else 24
    random = np.random.default_rng(1)
    drawn = random.lognormal(np.log(mean) - spread**2 / 2, spread, count)
    return [int(length) for length in np.clip(drawn, 8, 1024 if HAS_GPU else 40)]


def flops(config: PreTrainedConfig, tokens: float, targets: float, mean_row: float) -> float:
    """Products of a step of a dense model: frozen weights twice forward and twice backward, causal attention, the head.

    Recomputation, the adapter and what padding costs are not counted as work that was asked for.
    """
    width, key_width = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    weights = config.num_hidden_layers * (hidden * (2 * width + 2 * key_width) + 3 * hidden * inner)
    attention = 7 * config.num_hidden_layers * width * mean_row
    return tokens * (4 * weights + attention) + 4 * targets * hidden * config.vocab_size


def measure(session: Session, config: PreTrainedConfig, name: str, *, steps: int = 6, warm: int = 2) -> None:
    """Times steps after warm ones; says speed, MFU of a dense model, peak and reserved memory, and that of `plan`."""
    if HAS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    tokens = targets = 0
    for step in range(1, steps + warm + 1):
        synchronize()
        began = time.perf_counter()
        result = train_step(session, step)
        synchronize()
        if step > warm:
            seconds.append(time.perf_counter() - began)
            tokens += result.tokens
            targets += result.target_tokens
    total = sum(seconds)
    values: dict[str, Any] = {
        "tokens_per_second": tokens / total,
        "slowest_over_median": max(seconds) / float(np.median(seconds)),
        "tokens_per_step": tokens / steps,
        "token_budget": session.decided.token_budget,
        "recomputes": session.decided.gradient_checkpointing,
    }
    if not hasattr(config, "n_routed_experts"):
        work = flops(config, tokens, targets, float(np.mean(session.rows.lengths)))
        values["mfu"] = work / total / PEAK_FLOPS
    say("speed", name, True, **values, **_memory(session, config))


def _memory(session: Session, config: PreTrainedConfig) -> dict[str, float]:
    """Peak and reserved memory in GB, and what `lorajob plan` counts for micro-batches of that size."""
    shapes = read_architecture(config.to_dict())
    if not HAS_GPU or shapes is None:
        return {}
    tokens = min(session.decided.token_budget, max(_step_tokens(session)))
    counted = memory_plan.estimate(
        shapes,
        session.job.spec,
        gpus=1,
        experts=session.decided.experts,
        recompute_every=session.decided.recompute_every if session.decided.gradient_checkpointing else 0,
        tokens=tokens,
    )
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_gb": peak / 1e9, "reserved_gb": reserved / 1e9, "plan_gb": counted.total / 1e9}


def _step_tokens(session: Session) -> list[int]:
    return [int(session.rows.lengths[session.steps.rows_of(step)].sum()) for step in range(1, 5)]


def profile(session: Session) -> None:
    """The share of a step in which the card works, and what takes it: a table of kernels beside the results."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    train_step(session, 1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if HAS_GPU else [])]
    with profiler(activities=activities) as found:
        began = time.perf_counter()
        train_step(session, 2)
        synchronize()
        wall = time.perf_counter() - began
    kernels = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.device_time for event in kernels) / 1e6
    say("profile", "a step: kernels, and the card's share of its time", True, kernels=len(kernels), busy=busy / wall)
    order = "self_cuda_time_total" if HAS_GPU else "self_cpu_time_total"
    (folder() / "profile.txt").write_text(found.key_averages().table(sort_by=order, row_limit=40))


def free() -> None:
    gc.collect()
    if HAS_GPU:
        torch.cuda.empty_cache()


def dense() -> None:
    """Qwen3-8B: every set of rows as it is, the variants on one of them, and the trainers of others."""
    config = qwen3(36)
    for rows in ROWS:
        for variant, settings in (VARIANTS | (CARD_VARIANTS if HAS_GPU else {})).items():
            if variant == "as it is" or rows == "rows of 600":
                attempt("speed", variant, lambda r=rows, v=variant, s=settings: _dense(config, r, v, s))  # type: ignore[misc]
                free()
    for rows in ("rows of 80", "rows of 600"):
        lengths = lengths_of(rows)
        attempt("speed", "Trainer", lambda n=lengths, r=rows: trainer.measure(config, n, f"tutorials' recipe, {r}"))  # type: ignore[misc]
        free()
    if HAS_GPU:
        name = "Trainer with Liger, activations kept, rows of 600"
        attempt("speed", name, lambda: trainer.measure(config, lengths_of("rows of 600"), name, liger=True))


def _dense(config: PreTrainedConfig, rows: str, variant: str, settings: dict[str, Any]) -> None:
    session = started(config, lengths_of(rows), **settings)
    measure(session, config, f"lorajob {variant}, {rows}")
    if variant == "as it is" and rows == "rows of 600":
        profile(session)


def glm_config() -> Glm4MoeConfig:
    """GLM-4.5-Air with two layers, both with experts; on a CPU tiny ones."""
    sizes: dict[str, Any] = {
        "vocab_size": 8192,
        "hidden_size": 4096,
        "moe_intermediate_size": 1408,
        "intermediate_size": 10944,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
    }
    if not HAS_GPU:
        sizes = TINY | {"moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2}
    return Glm4MoeConfig(
        **sizes, num_hidden_layers=2, n_shared_experts=1, first_k_dense_replace=0, tie_word_embeddings=False
    )


def glm(tokens_of_steps: Sequence[int] = (2048, 8192) if HAS_GPU else (64,)) -> None:
    """Two layers of GLM-4.5-Air with all experts adapted, steps of so many tokens."""
    for tokens in tokens_of_steps:
        name = f"two layers of GLM-4.5-Air, adapters on all experts, {tokens} tokens"

        def work(tokens: int = tokens, name: str = name) -> None:
            config = glm_config()
            lora = {"dropout": 0.0, "experts": True}
            measure(started(config, [tokens // 16] * 16, lora=lora), config, name)

        attempt("speed", name, work)
        free()


if __name__ == "__main__":
    {"dense": dense, "glm": glm}[sys.argv[1]]()
