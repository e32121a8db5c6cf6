"""What the hand-written sequences of several tests begin with."""

from __future__ import annotations

from collections.abc import Callable

Expect = Callable[..., None]
"""The fixture `expect_sequences`."""

ALPACA = [{"instruction": "你父亲是谁", "input": "？", "output": "家父是甄远道。"}]

SMOLLM2_SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
QWEN25_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n⟦{}<|im_end|>⟧"
"""A question and its answer, for `format`."""
