"""FP8 checkpoints as hubs ship them: a scale a block, experts one by one; and the same numbers as plain ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

BLOCK = 128
NOT_QUANTISED = ["gate", "e_score_correction_bias", "lm_head"]


def quantise(weight: Any) -> tuple[Any, Any]:
    """A weight [rows, columns] as float8_e4m3fn, and the fp32 scales of its blocks; the last ones may be cut."""
    import torch

    rows, columns = weight.shape
    blocks = torch.nn.functional.pad(weight, (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = blocks.view(-(-rows // BLOCK), BLOCK, -(-columns // BLOCK), BLOCK)
    scales = blocks.abs().amax(dim=(1, 3)) / torch.finfo(torch.float8_e4m3fn).max
    quantised = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn).view(torch.uint8)
    flat = quantised.reshape(blocks.shape[0] * BLOCK, -1)[:rows, :columns].contiguous()
    return flat.view(torch.float8_e4m3fn), scales


def dequantise(quantised: Any, scales: Any) -> Any:
    """What the two stand for, in fp32."""
    rows, columns = quantised.shape
    whole = scales.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return quantised.float() * whole


def write(model: Path, folder: Path) -> tuple[Path, Path]:
    """From a plain checkpoint: one with projections and experts in FP8 with scales, and that one's numbers in fp32."""
    from safetensors.torch import load_file, save_file

    quantised, plain = folder / "fp8", folder / "plain"
    for target in (quantised, plain):
        shutil.copytree(model, target)
    stored, numbers = {}, {}
    for name, tensor in load_file(model / "model.safetensors").items():
        stored[name] = numbers[name] = tensor
        if name.endswith("_proj.weight") or ".experts." in name:
            stored[name], stored[f"{name}_scale_inv"] = quantise(tensor)
            numbers[name] = dequantise(stored[name], stored[f"{name}_scale_inv"])
    save_file(stored, quantised / "model.safetensors", {"format": "pt"})
    save_file(numbers, plain / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "fmt": "float8_e4m3fn",
        "modules_to_not_convert": NOT_QUANTISED,
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    }
    (quantised / "config.json").write_text(json.dumps(config))
    return quantised, plain
