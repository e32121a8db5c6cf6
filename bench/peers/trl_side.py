"""TRL's SFTTrainer on token rows: `python trl_side.py SETTINGS.json`, in TRL's environment, started by train.py.

Padding-free: the rows of a micro-batch are laid end to end. Packed: whole rows are already joined, as TRL's packing
joins them, and the trainer gets their lengths. Activations are kept, which is faster than TRL's default; the loss is
TRL's own, which makes logits of the target tokens alone. The rest is as TRL has it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import steps
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer


def rows_of(path: Path) -> Dataset:
    """The rows as TRL's own preparation leaves them; `seq_lengths` only where rows are joined."""
    examples = steps.examples(path)
    packed = any(len(each["lengths"]) > 1 for each in examples)
    names = {"input_ids": "input_ids", "labels": "labels"} | ({"seq_lengths": "lengths"} if packed else {})
    return Dataset.from_dict({name: [each[key] for each in examples] for name, key in names.items()})


def main(settings: dict[str, Any]) -> None:
    """Trains and writes what `steps.write` writes."""
    from trl import SFTConfig, SFTTrainer

    clock = steps.Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"])),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=settings["rank"],
            lora_alpha=settings["alpha"],
            lora_dropout=settings["dropout"],
            target_modules=settings["targets"],
        ),
        args=SFTConfig(
            output_dir=settings["scratch"],
            per_device_train_batch_size=settings["batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation"],
            max_steps=settings["steps"],
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            max_grad_norm=settings["max_gradient_norm"],
            lr_scheduler_type=settings["scheduler"],
            seed=settings["seed"],
            train_sampling_strategy="sequential",
            padding_free=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=settings["autocast"],
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows_of(Path(settings["rows"])),
        callbacks=[clock],
    )
    trainer.train()
    steps.write(Path(settings["output"]), clock, "trl")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
