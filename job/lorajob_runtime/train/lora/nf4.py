"""Base weights in nf4 by bitsandbytes: four bits a weight and a scale for every 64, multiplied in the run's precision.

The format is QLoRA's (Dettmers et al. 2023), its scales quantised once more. The linear layers are quantised;
embeddings, norms and the head stay as they are. Importing this module imports bitsandbytes, which takes seconds, so
only a run that asks for nf4 does.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from torch import nn
from transformers import BitsAndBytesConfig

from lorajob_runtime.train.lora.groups import Fused


def options(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` needs to quantise while it loads, weight by weight, and to multiply in `dtype`."""
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantized, "device_map": {"": device}}


def disable_repacking(model: nn.Module) -> None:
    """Makes weights keep their layout. On some CPUs an evaluation repacks them, and no gradient passes after that."""
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


class FusedLora4bit(Fused, PeftLinear4bit):
    """A linear layer with a 4-bit weight.

    In PEFT's own the thin products are fp32, and its dropout comes from a generator whose state is not kept.
    """


def fused_kinds() -> dict[type, type]:
    """PEFT's class of LoRA layers around 4-bit weights, and what it becomes."""
    return {PeftLinear4bit: FusedLora4bit}
