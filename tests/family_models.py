"""The small random models of the five families, made once a test session and loaded anew for every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families


class FamilyModels:
    """Folders of `families.tiny`, made when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, family: str) -> Path:
        path = self._root / family
        return path if path.exists() else families.tiny(family, path)

    def load(self, family: str) -> Any:
        """The frozen model in fp32."""
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.folder(family), dtype=torch.float32)
        model.requires_grad_(False)
        model.config.use_cache = False
        return model.eval()


def shake(model: Any, *, seed: int = 5) -> Any:
    """Gives every adapter a B that is not zero, which it begins with."""
    import torch

    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def save(model: Any, folder: Path, *, base: str = "base") -> Path:
    """Writes the adapter as a checkpoint holds it."""
    from safetensors.torch import save_file

    from lorajob_runtime.contract import layout
    from lorajob_runtime.train.lora import attach

    save_file(attach.adapter_state(model), folder / layout.ADAPTER_WEIGHTS, metadata={"format": "pt"})
    attach.adapter_config(model, base).save_pretrained(str(folder))
    return folder
