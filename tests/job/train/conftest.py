"""A tiny model with random weights, and processes to train it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_ranks import ForkedRanks
from training_runs import VOCABULARY


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedRanks]:
    """Runs programs on several processes, without importing everything in each of them."""
    with ForkedRanks(tmp_path_factory.mktemp("ranks")) as forked:
        yield forked


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers: grouped-query attention, query and key norms, tied head."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("tiny-qwen3")
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path
