"""The tutorials' recipe as published, on the token rows of a run folder: what lorajob's speed is measured against.

    python bench/tutorial.py RUN_FOLDER OUTPUT.json

PEFT's LoRA on bf16 weights under transformers.Trainer, batches padded by DataCollatorForSeq2Seq, gradient checkpointing
on, as in datawhalechina/self-llm's Qwen3-8B LoRA notebook. Only the rows come ready-made, so that both train on the
same tokens; their order is the same too, since both shuffle by the same seed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train import job as train_job

IGNORED = -100


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds and loss of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append({"seconds": _now() - self._began})

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.steps[-1]["loss"] = logs["loss"]


def _now() -> float:
    """The clock, once a GPU has done what it was given: the optimizer step is only queued when a step ends."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def examples(rows: TokenRows) -> list[dict[str, list[int]]]:
    """The rows as the tutorials' process_func gives them."""
    made = []
    for index in range(len(rows)):
        ids, targets = rows.row(index)
        labels = [int(token) if target else IGNORED for token, target in zip(ids, targets, strict=True)]
        made.append({"input_ids": ids.tolist(), "attention_mask": [1] * len(labels), "labels": labels})
    return made


def main(root: str, output: str) -> None:
    """Trains and writes {"steps": [{"seconds", "loss"}], "memory_bytes"}."""
    folder = RunFolder(Path(root))
    job = train_job.loads(folder.train_job.read_text())
    train, lora = job.spec.train, job.spec.lora
    tokenizer = AutoTokenizer.from_pretrained(job.model_path)
    model = AutoModelForCausalLM.from_pretrained(job.model_path, dtype=torch.bfloat16)
    model.enable_input_require_grads()
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        inference_mode=False,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
    )
    torch.manual_seed(train.seed)
    clock = Clock()
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=str(folder.root / "tutorial"),
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=train.gradient_accumulation,
            logging_steps=1,
            num_train_epochs=train.epochs,
            max_steps=train.max_steps or -1,
            save_strategy="no",
            learning_rate=train.learning_rate,
            gradient_checkpointing=True,
            seed=train.seed,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(examples(TokenRows.load(folder.train_rows))),
        data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer, padding=True),
        callbacks=[clock],
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    Path(output).write_text(json.dumps({"steps": clock.steps, "memory_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
