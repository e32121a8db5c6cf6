"""Loads the frozen base model, and finds out by trying what the fast paths may rely on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lorajob_runtime.exits import ConfigError, ModelError
from lorajob_runtime.spec import ModelSpec
from lorajob_runtime.train import attention

Precision = Literal["bf16", "fp32"]
_EDGE_BYTES = 2**20
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose_precision(asked: str, device: torch.device) -> Precision:
    """auto: bf16 where the device multiplies it natively, else fp32. Raises ConfigError for bf16 that cannot work."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if asked == "bf16" and not native:
            raise ConfigError(f"train.precision is 'bf16': {torch.cuda.get_device_name(device)} has none, use fp32")
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16"))
    if asked == "auto":
        return "bf16" if native else "fp32"
    return cast(Precision, asked)


def load(path: Path, model: ModelSpec, precision: Precision, device: torch.device) -> PreTrainedModel:
    """The frozen model on its device, with document attention where its kind of attention allows that.

    Raises ModelError when transformers cannot load it.
    """
    attention.register()
    try:
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype=DTYPES[precision], trust_remote_code=model.trust_remote_code, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"{model.name}: transformers cannot load it from {path}: {error}") from error
    if attention.supports(loaded.config):
        loaded.set_attn_implementation(attention.NAME)
    loaded.requires_grad_(False)
    loaded.config.use_cache = False
    return cast(PreTrainedModel, loaded.to(device))


def fingerprint(path: Path) -> str:
    """Tells weights apart without reading all of them: names, sizes, and both ends of every safetensors file.

    Other revisions, other precisions and dequantised copies of a model differ in these.
    """
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(_EDGE_BYTES))
            content.seek(max(0, size - _EDGE_BYTES))
            digest.update(content.read(_EDGE_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What holds for a model: `packs`, documents do not see each other; `plain_head`, logits = head(hidden)."""

    packs: bool
    plain_head: bool


@torch.no_grad()
def probe(model: PreTrainedModel) -> Traits:
    """Tries two tiny documents, packed and alone, and compares the head with the model's own logits."""
    device = model.device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(3, 15, device=device).remainder(vocabulary).unsqueeze(0)
    was_training = model.training
    model.eval()
    packed = hidden_states(model, tokens, documents=[5, 7])[0]
    alone = torch.cat(
        [hidden_states(model, tokens[:, :5], documents=[5])[0], hidden_states(model, tokens[:, 5:], documents=[7])[0]]
    )
    head = model.get_output_embeddings()
    logits = model(input_ids=tokens[:, :5], use_cache=False).logits[0]
    # the same product of the same numbers: any difference is something that the model does to its logits
    plain = isinstance(head, nn.Linear) and torch.equal(
        head(hidden_states(model, tokens[:, :5], documents=[5])[0]).float(), logits.float()
    )
    model.train(was_training)
    return Traits(packs=_close(packed, alone), plain_head=plain)


def hidden_states(model: nn.Module, tokens: Tensor, documents: list[int]) -> Tensor:
    """Last hidden states [1, tokens, hidden] of documents (their lengths) laid end to end in `tokens` [1, tokens]."""
    output: Tensor = decoder(model)(**packed_inputs(tokens, documents)).last_hidden_state
    return output


def packed_inputs(tokens: Tensor, documents: list[int]) -> dict[str, Any]:
    """What a transformers model needs to keep documents apart; positions start anew in each."""
    device = tokens.device
    positions = torch.cat([torch.arange(length) for length in documents]).unsqueeze(0).to(device)
    bounds = torch.zeros(len(documents) + 1, dtype=torch.int32)
    bounds[1:] = torch.tensor(documents).cumsum(0)
    bounds = bounds.to(device)
    longest = max(documents)
    return {
        "input_ids": tokens,
        "position_ids": positions,
        "use_cache": False,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def decoder(model: nn.Module) -> nn.Module:
    """The part below the head, of a plain or a PEFT model."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast(nn.Module, base.get_decoder())


def head(model: nn.Module) -> nn.Module:
    """The language model head, of a plain or a PEFT model."""
    return cast(nn.Module, cast(Any, model).get_output_embeddings())


@contextlib.contextmanager
def generating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with an attention that can use a key-value cache; afterwards all is as it was."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    was_training, was_attention = model.training, base.config._attn_implementation
    model.eval()
    base.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        base.set_attn_implementation(was_attention)
        model.train(was_training)


def _close(left: Tensor, right: Tensor) -> bool:
    scale = right.float().abs().max().clamp(min=1e-6)
    return bool((left.float() - right.float()).abs().max() / scale < 0.02)
