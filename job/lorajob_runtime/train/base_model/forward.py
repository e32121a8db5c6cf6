"""Loads the frozen base model, and finds out by trying what the fast paths may rely on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.train.base_model import attention, loading
from lorajob_runtime.train.base_model.fused import replacing
from lorajob_runtime.train.parallel.sharding import REPLICATED, Sharding

_RANDOM_SETTINGS = ("dropout", "pdrop", "drop_rate", "jitter", "noise")
"""Parts of the names of a configuration's settings that have a layer draw random numbers where they are above 0."""
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


def load(
    path: Path, model: ModelSpec, precision: Precision, device: torch.device, sharding: Sharding = REPLICATED
) -> PreTrainedModel:
    """The frozen model on its device, with document attention where its kind of attention allows that.

    Sharded, every rank reads its own part of each tensor and never holds more of them. Called by all ranks together.
    Raises ModelError when transformers cannot load it.
    """
    attention.register()
    loaded = loading.load(path, model, DTYPES[precision], device, **sharding.options(device))
    if attention.supports(loaded.config):
        loaded.set_attn_implementation(attention.NAME)
    loaded.requires_grad_(False)
    loaded.config.use_cache = False
    return loaded if sharding.is_sharded else cast(PreTrainedModel, loaded.to(device))


def own_functions(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the fused functions that give this model's numbers, and that are faster where it lies."""
    return tuple(sorted((*replacing.found(model), *attention.widened(model))))


def use_functions(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Has the model compute by these functions, in place; whatever else it does stays transformers' own."""
    replacing.use(model, names)
    attention.widen(model, names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What holds for a model: `packs`, documents do not see each other; `plain_head`, logits = head(hidden)."""

    packs: bool
    plain_head: bool


@torch.no_grad()
def probe(model: PreTrainedModel) -> Traits:
    """Tries two tiny documents, packed and alone, and compares the head with the model's own logits."""
    device = model.device
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(3, 15, device=device).remainder(vocabulary).unsqueeze(0)
    was_training = model.training
    model.eval()
    packed = hidden_states(model, tokens, documents=[5, 7])[0]
    alone = torch.cat(
        [hidden_states(model, tokens[:, :5], documents=[5])[0], hidden_states(model, tokens[:, 5:], documents=[7])[0]]
    )
    model.train(was_training)
    return Traits(packs=_close(packed, alone), plain_head=_has_plain_head(model, tokens))


def _has_plain_head(model: PreTrainedModel, tokens: Tensor) -> bool:
    """Whether logits are the head's product and nothing more."""
    if not isinstance(head(model), nn.Linear):
        return False
    products: list[Tensor] = []

    def watched(hidden: Tensor, weight: Tensor) -> Tensor:
        products.append(F.linear(hidden, weight))
        return products[0]

    inputs = packed_inputs(tokens, [tokens.shape[1]])
    # the same numbers: any difference is something that the model, or the head's bias, does to its logits
    return torch.equal(forward_with_head(model, inputs, watched).float(), products[0].float()) and torch.equal(
        products[0].float(), model(**inputs).logits.float()
    )


def forward_with_head(model: nn.Module, inputs: dict[str, Any], ends: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The model's forward pass with `ends(hidden states [1, T, hidden], head's weight)` in place of the head.

    Everything goes through the call of the whole model, since that is what gathers sharded weights, the head's too.
    """
    module = head(model)
    if "forward" in module.__dict__:
        raise RuntimeError("the head's forward pass is already another")
    module.forward = lambda hidden: ends(hidden, cast(Tensor, module.weight))
    try:
        result: Tensor = model(**inputs).logits
    finally:
        del module.forward
    return result


def hidden_states(model: nn.Module, tokens: Tensor, documents: list[int]) -> Tensor:
    """Last hidden states [1, tokens, hidden] of documents (their lengths) laid end to end in `tokens` [1, tokens]."""
    seen: list[Tensor] = []

    def keep(hidden: Tensor, _: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    forward_with_head(model, packed_inputs(tokens, documents), keep)
    return seen[0]


@torch.no_grad()
def try_pass(model: nn.Module) -> None:
    """One forward pass of two tokens, for who watches what calls what. Called by all ranks together."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    hidden_states(model, torch.zeros((1, 2), dtype=torch.long, device=device), documents=[2])
    model.train(was_training)


def packed_inputs(tokens: Tensor, documents: Sequence[int]) -> dict[str, Any]:
    """What a transformers model needs to keep documents apart; positions start at 0 in each."""
    edges = [0, *itertools.accumulate(documents)]
    # one copy to the device, since each costs a call, and waits where it is not from pinned memory
    numbers = on_device(
        np.concatenate([np.asarray(edges), *(np.arange(length) for length in documents)]).astype(np.int32),
        tokens.device,
    )
    bounds, positions = numbers[: len(edges)], numbers[len(edges) :]
    longest = max(documents)
    return {
        "input_ids": tokens,
        "position_ids": positions.unsqueeze(0),
        "use_cache": False,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
        "document_bounds": edges,
    }


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The numbers on a device. To a GPU they go from pinned memory: from any other a copy waits for all work before it.

    torch gives the pinned memory to nobody else before the copy is done.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def draws_random_numbers(model: PreTrainedModel) -> bool:
    """Whether training the plain model may draw from torch's own generator: by dropout or noise of its own."""
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        return True
    settings = model.config.get_text_config().to_dict()
    return any(
        isinstance(value, float) and value > 0
        for name, value in settings.items()
        if any(part in name for part in _RANDOM_SETTINGS)
    )


def recompute(model: PreTrainedModel, *, every: int, draws_random_numbers: bool) -> None:
    """Has every `every`-th layer, the first one among them, compute its activations again in the backward pass.

    A model whose layers transformers cannot tell apart computes all of them again.
    """
    # keeping torch's random state costs a layer more than it should where nothing draws from it
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False, "preserve_rng_state": draws_random_numbers})
    found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for index, layer in enumerate(found):
        layer.gradient_checkpointing = index % every == 0


def layers(model: nn.Module) -> int:
    """How many decoder layers there are."""
    return int(cast(Any, model).config.get_text_config().num_hidden_layers)


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
    """Alike but for rounding, which is a few percent in bf16; what other documents do to a token is as large as it.

    Numbers that are not finite tell nothing of it: the first step ends with what is wrong with them.
    """
    if not torch.isfinite(right).all():
        return True
    difference = torch.linalg.vector_norm(left.float() - right.float())
    return bool(difference < 0.2 * torch.linalg.vector_norm(right.float()).clamp(min=1e-6))
