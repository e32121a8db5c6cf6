"""The tutorials' recipe on random weights: PEFT under transformers.Trainer, padded; and that with Liger's kernels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedConfig, Trainer, TrainerCallback, TrainingArguments

from gpu.random_model import random_base, rows_of
from gpu.results import HAS_GPU, say, synchronize
from lorajob_runtime.models.lora_targets import AUTO_TARGETS

BATCH, ACCUMULATION = 4, 4
IGNORED = -100


class Stamps(TrainerCallback):  # type: ignore[misc]
    """When each step began, and when the last one ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._stamp()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._stamp()

    def _stamp(self) -> None:
        synchronize()
        self.times.append(time.perf_counter())


def padded(batch: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Rows as DataCollatorForSeq2Seq pads them, to a multiple of 8, which is in the recipe's favour."""
    width = -(-max(len(row["input_ids"]) for row in batch) // 8) * 8

    def filled(name: str, value: int) -> Tensor:
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in batch])

    return {
        "input_ids": filled("input_ids", 0),
        "labels": filled("labels", IGNORED),
        "attention_mask": filled("mask", 0),
    }


def measure(
    config: PreTrainedConfig, lengths: Sequence[int], name: str, *, liger: bool = False, steps: int = 4
) -> None:
    """Says speed and peak memory. With Liger activations are kept, without they are recomputed, as in the recipe."""
    if liger:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3

        apply_liger_kernel_to_qwen3(rope=True, rms_norm=True, swiglu=True, fused_linear_cross_entropy=True)
    base = random_base(config)
    base.set_attn_implementation("sdpa")
    base.enable_input_require_grads()
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=list(AUTO_TARGETS), task_type="CAUSAL_LM")
    rows = rows_of(lengths, config.vocab_size)
    examples = []
    for number in range(len(rows)):
        ids, mask = rows.row(number)
        labels = np.where(mask, ids, IGNORED).tolist()
        examples.append({"input_ids": ids.tolist(), "labels": labels, "mask": [1] * len(ids)})
    stamps = Stamps()
    if HAS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            max_steps=steps,
            learning_rate=1e-4,
            gradient_checkpointing=not liger,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not HAS_GPU,
            remove_unused_columns=False,
        )
        Trainer(
            model=get_peft_model(base, lora),
            args=arguments,
            train_dataset=examples,
            data_collator=padded,
            callbacks=[stamps],
        ).train()
    tokens = BATCH * ACCUMULATION * float(np.mean(rows.lengths))
    seconds = (stamps.times[-1] - stamps.times[1]) / (len(stamps.times) - 2)
    memory = {"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if HAS_GPU else {}
    say("speed", name, True, tokens_per_second=tokens / seconds, **memory)
