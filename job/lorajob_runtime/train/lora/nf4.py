"""Base weights in nf4 by bitsandbytes: four bits a weight and a scale for every 64, multiplied in the run's precision.

The format is QLoRA's (Dettmers et al. 2023), its scales quantised once more. The linear layers are quantised;
embeddings, norms and the head stay as they are. Importing this module imports bitsandbytes, which takes seconds, so
only a run that asks for nf4 does.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from lorajob_runtime.train.lora.dropout import DropoutMasks


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


def fuse(model: nn.Module, masks: DropoutMasks, first: int) -> int:
    """Has PEFT's LoRA layers around 4-bit weights train with `masks`, in place. Returns how many there are.

    `first` is the number of the first one, by which its mask is drawn.
    """
    count = 0
    for module in cast(Any, model).modules():
        if type(module) is PeftLinear4bit and not any(module.lora_bias.values()):
            module.__class__ = Lora4bit
            module.__dict__.update(fused_masks=masks, fused_index=first + count)
            count += 1
    return count


class Lora4bit(PeftLinear4bit):
    """A PEFT LoRA layer around a 4-bit weight. In training its thin products run in the type of its input.

    PEFT's own would turn the input into fp32 and draw its dropout from a generator whose state is not kept.
    """

    fused_masks: DropoutMasks
    fused_index: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.training or self.disable_adapters or self.merged or args or kwargs:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        adapter = self.active_adapters[0]
        probability = getattr(self.lora_dropout[adapter], "p", 0.0)
        kept = x * self.fused_masks.mask(x, probability, self.fused_index) if probability else x
        down = F.linear(kept, self.lora_A[adapter].weight.to(x.dtype))
        scaled = (self.lora_B[adapter].weight * self.scaling[adapter]).to(x.dtype)
        # bitsandbytes saves the packed weight for the backward pass, and unpacks it again there
        return cast(Tensor, cast(nn.Module, self.base_layer)(x) + F.linear(down, scaled))
