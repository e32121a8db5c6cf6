"""SmolLM2: Llama's layers, with a chat template and a tokenizer of its own."""

from __future__ import annotations

from lorajob_runtime.models.families.family import ChatFormat, Family

FAMILY = Family(
    name="smollm2",
    chat=ChatFormat(signatures=("<|im_start|>", "named SmolLM, trained by Hugging Face")),
    gguf_splits_digits=("smollm",),
)
