"""Small random models of the five architectures that the recipes train, each as its hub ships it but for the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FAMILIES = ("qwen3", "qwen2.5", "hunyuan", "glm-4.5", "minimax-m2")
MOE_FAMILIES = ("hunyuan", "glm-4.5", "minimax-m2")
VOCABULARY = 320
LAYERS = 3


def tiny(family: str, folder: Path, *, seed: int = 7, vocabulary: int = VOCABULARY, **settings: Any) -> Path:
    """Saves a random model of `family` in fp32, without a tokenizer; `settings` outrank those of its configuration."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, vocabulary=vocabulary, **settings), dtype=torch.float32)
    for name, buffer in model.named_buffers():
        # a router's correction starts at zero, where nobody would see that it is lost
        if name.endswith("e_score_correction_bias"):
            buffer.uniform_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def config(family: str, *, vocabulary: int = VOCABULARY, **settings: Any) -> Any:
    """The configuration of a small model."""
    import transformers

    common = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    classes: dict[str, tuple[str, dict[str, Any]]] = {
        "qwen3": ("Qwen3Config", {}),
        "qwen2.5": ("Qwen2Config", {}),
        "hunyuan": (
            "HunYuanMoEV1Config",
            {
                "num_experts": 8,
                "moe_topk": [2] * LAYERS,
                "moe_intermediate_size": [48] * LAYERS,
                "num_shared_expert": 1,
            },
        ),
        "glm-4.5": (
            "Glm4MoeConfig",
            {
                "n_routed_experts": 8,
                "num_experts_per_tok": 2,
                "n_shared_experts": 1,
                "moe_intermediate_size": 16,
                "first_k_dense_replace": 1,
                "use_qk_norm": False,
                "attention_bias": True,
                "partial_rotary_factor": 0.5,
                "routed_scaling_factor": 1.0,
                "norm_topk_prob": True,
            },
        ),
        "minimax-m2": (
            "MiniMaxM2Config",
            {"num_local_experts": 8, "num_experts_per_tok": 2, "rotary_dim": 4},
        ),
    }
    name, own = classes[family]
    return getattr(transformers, name)(**(common | own | settings))
