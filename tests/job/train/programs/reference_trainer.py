"""The reference: transformers.Trainer with PEFT on the rows of a run folder, padded by DataCollatorForSeq2Seq.

Arguments: RUN_FOLDER, OUTPUT.json. Starts from the very adapter that the run starts from: PEFT's initial weights under
the same seed. In a mixture of experts, PEFT adds the adapter to the experts' weights in every pass.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.models.lora_targets import AUTO_TARGETS
from lorajob_runtime.train import job as train_job

ATTENTION = list(AUTO_TARGETS[:4])
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def weights_of(mlp: str) -> list[str]:
    return [f"{mlp}.{name}.weight" for name in AUTO_TARGETS[4:]]


TARGETS = {
    "hunyuan_v1_moe": (ATTENTION, [*EXPERTS, *weights_of("mlp.shared_mlp")]),
    "glm4_moe": (ATTENTION, [*EXPERTS, *weights_of("mlp"), *weights_of("mlp.shared_experts")]),
    "minimax_m2": (ATTENTION, EXPERTS),
}


class Record(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.norms.append(float(logs["grad_norm"]))


def padding_tokenizer() -> PreTrainedTokenizerFast:
    """Only pads: any tokenizer with a pad token does."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"[PAD]": 0}, "[PAD]")), pad_token="[PAD]")


def main(arguments: list[str]) -> None:
    root, output = arguments
    folder = RunFolder(Path(root))
    job = train_job.loads(folder.train_job.read_text())
    train, lora = job.spec.train, job.spec.lora
    rows = TokenRows.load(folder.train_rows)
    examples = []
    for index in range(len(rows)):
        ids, targets = rows.row(index)
        labels = [int(token) if target else -100 for token, target in zip(ids, targets, strict=True)]
        examples.append({"input_ids": ids.tolist(), "labels": labels, "attention_mask": [1] * len(labels)})
    model = AutoModelForCausalLM.from_pretrained(job.model_path, dtype=torch.float32)
    model.requires_grad_(False)
    torch.manual_seed(train.seed)
    modules, parameters = TARGETS.get(model.config.model_type, (list(AUTO_TARGETS), None))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules,
        target_parameters=parameters,
        task_type="CAUSAL_LM",
    )
    record = Record()
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=str(folder.root / "reference"),
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=train.gradient_accumulation,
            learning_rate=train.learning_rate,
            lr_scheduler_type=train.scheduler,
            max_steps=train.max_steps,
            max_grad_norm=train.max_grad_norm,
            seed=train.seed,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(examples),
        data_collator=DataCollatorForSeq2Seq(tokenizer=padding_tokenizer(), padding=True),
        callbacks=[record],
    )
    trainer.train()
    if int(os.environ.get("RANK", "0")) == 0:
        Path(output).write_text(json.dumps({"losses": record.losses, "norms": record.norms}))
    if dist.is_initialized():
        # one that is gone while another still works on takes that down
        dist.barrier()
        dist.destroy_process_group()
