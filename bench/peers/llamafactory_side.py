"""LLaMA-Factory's own training on token rows: `python llamafactory_side.py SETTINGS.json`, started by train.py.

Its recipe for LoRA, through `run_exp` as `llamafactory-cli train` calls it, with the rows as the tokenised dataset that
it can be given. Rows that are joined train with `neat_packing`; LLaMA-Factory would fill each up to `cutoff_len` with
padding, which is left out in its favour. Activations are kept, which is faster than its default.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import steps
from datasets import Dataset, DatasetDict


def stand_in_for_torchaudio() -> None:
    """LLaMA-Factory imports it for sounds, and its last version refuses the torch that all sides train with."""
    module = ModuleType("torchaudio")
    module.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module


def columns(example: dict[str, list[int]]) -> dict[str, Any]:
    """A row as LLaMA-Factory's processors leave it: each document of several has a number of its own in the mask."""
    lengths = example["lengths"]
    mask = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    row = {"input_ids": example["input_ids"], "labels": example["labels"], "attention_mask": mask}
    return row | {"images": None, "videos": None, "audios": None}


def options(settings: dict[str, Any], *, packed: bool) -> dict[str, Any]:
    """The options of its YAML files."""
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "model_name_or_path": settings["model"],
        "template": "empty",
        "dataset": "rows",
        "tokenized_path": str(Path(settings["scratch"], "tokenized")),
        "neat_packing": packed,
        "disable_shuffling": True,
        "cutoff_len": settings["max_length"],
        "lora_rank": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "lora_target": ",".join(settings["targets"]),
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "output_dir": str(Path(settings["scratch"], "output")),
        "per_device_train_batch_size": settings["batch_size"],
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "max_steps": settings["steps"],
        "learning_rate": settings["learning_rate"],
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": settings["max_gradient_norm"],
        "lr_scheduler_type": settings["scheduler"],
        "seed": settings["seed"],
        "bf16": settings["autocast"],
        "use_cpu": settings["device"] == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def main(settings: dict[str, Any]) -> None:
    """Trains and writes what `steps.write` writes."""
    examples = steps.examples(Path(settings["rows"]))
    packed = any(len(each["lengths"]) > 1 for each in examples)
    tokenised = Dataset.from_list([columns(each) for each in examples])
    DatasetDict({"train": tokenised}).save_to_disk(str(Path(settings["scratch"], "tokenized")))
    stand_in_for_torchaudio()
    from llamafactory.train.tuner import run_exp

    clock = steps.Clock()
    run_exp(options(settings, packed=packed), callbacks=[clock])
    steps.write(Path(settings["output"]), clock, "llamafactory")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
