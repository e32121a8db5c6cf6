"""The tutorials' recipe as published, on the token rows of a run folder: what lorajob's speed is measured against.

    python bench/tutorial.py RUN_FOLDER OUTPUT.json

PEFT's LoRA on bf16 weights under transformers.Trainer, batches padded by DataCollatorForSeq2Seq, gradient checkpointing
on, as in datawhalechina/self-llm's Qwen3-8B LoRA notebook. Only the rows come ready-made, so that both train on the
same tokens; their order is the same too, since both shuffle by the same seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train import job as train_job
from peers import rows as token_rows
from peers import steps


def examples(rows: TokenRows) -> list[dict[str, list[int]]]:
    """The rows as the tutorials' process_func gives them."""
    made = [token_rows.example(rows, [index]) for index in range(len(rows))]
    return [
        {"input_ids": row["input_ids"], "attention_mask": [1] * len(row["labels"]), "labels": row["labels"]}
        for row in made
    ]


def main(root: str, output: str) -> None:
    """Trains and writes what `steps.write` writes."""
    folder = RunFolder(Path(root))
    job = train_job.loads(folder.train_job.read_text())
    train, lora = job.spec.train, job.spec.lora
    tokenizer = AutoTokenizer.from_pretrained(job.model_path)
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job.model_path, dtype=dtype)
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
    clock = steps.Clock()
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
    steps.write(Path(output), clock)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
