"""A training session on random weights: everything of a run but the reading of the base model, and no disk.

`session.start` does its work as in a run: the model is probed, memory decides the size of micro-batches, the adapter is
attached and the fast paths are put in place. Only what would read the weights makes them instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen3Config

from gpu.results import DEVICE, HAS_GPU
from lorajob_runtime.contract import spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train import session as sessions
from lorajob_runtime.train.base_model import loading
from lorajob_runtime.train.job import TrainJob
from lorajob_runtime.train.session import Session

TINY: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
QWEN3_8B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def qwen3(layers: int) -> Qwen3Config:
    """Qwen3-8B with so many layers; on a CPU two tiny ones."""
    sizes = QWEN3_8B | {"num_hidden_layers": layers} if HAS_GPU else TINY | {"num_hidden_layers": 2}
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return Qwen3Config(**sizes, max_position_embeddings=40960, rope_parameters=rope, tie_word_embeddings=False)


def random_base(config: PreTrainedConfig, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """The model with random weights, made on the device: the same for the same configuration."""
    torch.manual_seed(3)
    with DEVICE:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def rows_of(lengths: Sequence[int], vocabulary: int) -> TokenRows:
    """Rows of random tokens, the last third of each with loss."""
    random = np.random.default_rng(0)
    return TokenRows.of(
        (random.integers(3, vocabulary, length).astype(np.int32), np.arange(length) >= length * 2 // 3)
        for length in lengths
    )


def started(config: PreTrainedConfig, lengths: Sequence[int], **settings: dict[str, Any]) -> Session:
    """A session that is ready for its first step, on rows of those lengths. `settings` are the spec's, by section."""
    root = Path(tempfile.mkdtemp(prefix="lorajob-gpu-"))
    config.save_pretrained(root / "model")
    folder = RunFolder(root / "run")
    folder.data.mkdir(parents=True)
    rows_of(lengths, config.vocab_size).save(folder.train_rows)
    folder.data_report.write_text("{}")
    base: dict[str, Any] = {
        "name": "gpu",
        "model": {"name": str(root / "model")},
        "train": {"precision": "bf16", "epochs": 50},
        "report": {"samples": {"count": 0}},
    }
    job = TrainJob(
        spec=spec.parse(spec.merge(base, settings)),
        model_path=str(root / "model"),
        model_source="random",
        model_revision="",
        base_name="random",
        device="auto" if HAS_GPU else "cpu",
        resume_step=None,
        attempt=1,
    )
    read = loading.load
    loading.load = lambda _path, _model, dtype, *_, **__: random_base(config, dtype)
    try:
        return sessions.start(job, folder, sessions.join_process_group(job))
    finally:
        loading.load = read
