"""The base model's fused functions give the numbers of transformers' own way, and are taken where they do."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import random_rows, write_run
from transformers import AutoModelForCausalLM
from transformers.models.glm4.modeling_glm4 import apply_rotary_pos_emb as interleaved
from transformers.models.glm4_moe.modeling_glm4_moe import apply_rotary_pos_emb as partial_halves
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb as halves

import families
from lorajob_runtime.contract import events, layout
from lorajob_runtime.train import checkpointing
from lorajob_runtime.train import job as plans
from lorajob_runtime.train import session as sessions
from lorajob_runtime.train import step as steps
from lorajob_runtime.train.base_model import attention, cpu_attention
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.base_model.cpu_attention import Widening
from lorajob_runtime.train.base_model.fused import replacing, rms_norm, rotary, swiglu

TYPES = [torch.float32, torch.bfloat16]
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    """Outputs and the gradients of inputs, for a gradient of the outputs that is not the same everywhere."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum((each.float() * numbers(*each.shape, seed=9)).sum() for each in outputs).backward()
    return [*(each.detach() for each in outputs), *(each.grad for each in leaves)]


def assert_same(ours: Callable[..., Any], plain: Callable[..., Any], *inputs: Tensor) -> None:
    """In the inputs' own type both within rounding of the plain way in fp32, ours no further from it than plain."""
    tolerance = TOLERANCES[inputs[0].dtype]
    exact = gradients(plain, *(each.float() for each in inputs))
    for got, expected, reference in zip(gradients(ours, *inputs), gradients(plain, *inputs), exact, strict=True):
        assert got.dtype == expected.dtype
        off, allowed = (float(torch.linalg.vector_norm(each.float() - reference)) for each in (got, expected))
        assert off <= max(1.2 * allowed, tolerance / 4 * float(torch.linalg.vector_norm(reference)))
        torch.testing.assert_close(got.float(), reference, atol=5 * tolerance, rtol=5 * tolerance)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 7, 24), (1, 5, 3, 16), (2, 576), (1, 1, 8)])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    norm = Qwen3RMSNorm(shape[-1], eps=1e-5).requires_grad_(False)
    norm.weight.copy_(numbers(shape[-1], seed=1))

    def ours(x: Tensor) -> Tensor:
        return rms_norm.rms_norm(x, norm.weight.to(x.dtype), 1e-5)

    assert_same(ours, lambda x: norm.to(x.dtype)(x), numbers(*shape, dtype=dtype))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_swiglu(dtype: torch.dtype) -> None:
    gate, up = (3 * numbers(1, 9, 40, seed=seed, dtype=dtype) for seed in (1, 2))

    assert_same(swiglu.swiglu, lambda gate, up: F.silu(gate) * up, gate, up)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("rotated", "plain"), [(16, halves), (16, partial_halves), (8, partial_halves)])
def test_rotary_positions_of_all_numbers_of_a_head_and_of_some(
    rotated: int, plain: Callable[..., Any], dtype: torch.dtype
) -> None:
    # as attention has them: heads and tokens are transposed
    query, key = (numbers(1, 6, heads, 16, dtype=dtype).transpose(1, 2) for heads in (4, 2))
    angles = torch.arange(6)[None, :, None] * torch.linspace(0.1, 1, rotated // 2).repeat(2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def ours(query: Tensor, key: Tensor) -> Any:
        return rotary.rotate(query, key, cos.to(query.dtype).unsqueeze(1), sin.to(query.dtype).unsqueeze(1))

    assert_same(ours, lambda query, key: plain(query, key, cos.to(query.dtype), sin.to(query.dtype)), query, key)
    assert ours(query, key)[0].stride() == query.stride()


def plain_attention(bounds: list[int]) -> Callable[..., Tensor]:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = [
            F.scaled_dot_product_attention(
                *(each[:, :, start:end] for each in (query, key, value)), is_causal=True, scale=0.3, enable_gqa=True
            )
            for start, end in itertools.pairwise(bounds)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2)

    return attend


WIDENINGS = [cpu_attention.AS_IT_IS, cpu_attention.FORWARD_AND_BACKWARD, Widening(backward_below=5)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("widening", WIDENINGS, ids=str)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 1)])
def test_attention_within_documents_on_a_cpu(
    heads: int, key_heads: int, widening: Widening, dtype: torch.dtype
) -> None:
    shapes = [(1, 12, count, 16) for count in (heads, key_heads, key_heads)]
    inputs = [numbers(*shape, seed=seed, dtype=dtype).transpose(1, 2) for seed, shape in enumerate(shapes)]
    bounds = [0, 4, 5, 12]

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return cpu_attention.attend(query, key, value, scaling=0.3, bounds=bounds, widening=widening)

    assert_same(ours, plain_attention(bounds), *inputs)


def test_as_it_is_attention_gives_the_very_numbers_of_torchs_own_call() -> None:
    inputs = [numbers(1, 2, 9, 16, seed=seed, dtype=torch.bfloat16) for seed in range(3)]

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return cpu_attention.attend(query, key, value, scaling=0.3, bounds=[0, 4, 9], widening=cpu_attention.AS_IT_IS)

    for got, expected in zip(gradients(ours, *inputs), gradients(plain_attention([0, 4, 9]), *inputs), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_computes_by_all_of_them_as_it_did_without(family: str, precision: Any, tmp_path: Path) -> None:
    attention.register()
    dtype = model_module.DTYPES[precision]
    model: Any = AutoModelForCausalLM.from_pretrained(families.tiny(family, tmp_path), dtype=dtype)
    model.set_attn_implementation(attention.NAME)
    model.requires_grad_(False)
    inputs = model_module.packed_inputs(torch.arange(5, 25)[None], [12, 8])
    plain = model(**inputs).logits

    names = model_module.own_functions(model)
    model_module.use_functions(model, names)

    widened = set(names) & attention.WIDENED.keys()
    assert set(names) - widened == {replacing.RMS_NORM, replacing.ROTARY, replacing.SWIGLU} - (
        # all of its MLPs are experts
        {replacing.SWIGLU} if family == "minimax-m2" else set()
    )
    assert len(widened) == (precision == "bf16")
    kinds = [type(module).__name__ for module in model.modules()]
    assert not [name for name in kinds if "RMSNorm" in name and not name.startswith("Fused")]
    assert model_module.probe(model) == model_module.Traits(packs=True, plain_head=True)
    difference = torch.linalg.vector_norm((model(**inputs).logits - plain).float())
    assert difference < {"fp32": 1e-5, "bf16": 3e-2}[precision] * torch.linalg.vector_norm(plain.float())


def test_what_computes_otherwise_keeps_its_own_way() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    # norms that multiply by 1 + weight, MLPs with gelu, but rotary positions as everybody's
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=64, num_key_value_heads=1, head_dim=16, **sizes))

    assert replacing.found(model.requires_grad_(False)) == (replacing.ROTARY,)
    assert not replacing._rotates_halves(interleaved)


class Strange(nn.Module):
    """Has a norm's parts and raises; what it does with them is its own affair."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(4)), 1e-6

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale


def test_a_norm_that_is_trained_or_is_none_is_left_alone() -> None:
    assert replacing.found(nn.Sequential(Strange()).requires_grad_(False)) == ()
    assert replacing.found(nn.Sequential(Qwen3RMSNorm(4))) == ()
    assert replacing.found(nn.Sequential(nn.LayerNorm(4)).requires_grad_(False)) == ()


def test_only_what_is_named_is_replaced(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)

    model_module.use_functions(model, [replacing.SWIGLU])

    fused = {type(module).__name__ for module in model.modules() if type(module).__name__.startswith("Fused")}
    assert fused == {"FusedQwen3MLP"}


@pytest.mark.parametrize("forgotten", [False, True], ids=["as decided", "a checkpoint that knows of no functions"])
def test_a_run_goes_on_with_the_functions_it_started_with(forgotten: bool, tiny_model: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path, tiny_model, random_rows(9), {"train": {"maxSteps": 2, "saveSteps": 1}})
    plan = plans.loads(folder.train_job.read_text())
    first = sessions.start(plan, folder, sessions.join_process_group(plan))
    steps.train_step(first, 1)
    with checkpointing.Writer(first) as checkpoints:
        checkpoints.save(1, evaluation_pending=False)
    path = folder.checkpoint(1) / layout.STATE
    state = json.loads(path.read_text())
    if forgotten:
        del state["decided"]["functions"]
        path.write_text(json.dumps(state))

    again = sessions.start(dataclasses.replace(plan, resume_step=1), folder, sessions.join_process_group(plan))

    assert list(first.decided.functions) == [replacing.RMS_NORM, replacing.ROTARY, replacing.SWIGLU]
    assert list(again.decided.functions) == ([] if forgotten else list(first.decided.functions))
    fused = [type(module).__name__ for module in again.model.modules() if type(module).__name__.startswith("Fused")]
    assert ("FusedQwen3RMSNorm" in fused) is not forgotten
    said = [event["functions"] for event in events.read(folder.events) if event.get("name") == "decided"]
    assert said == [list(first.decided.functions), list(again.decided.functions)]


def test_a_norm_that_may_be_given_a_gate_is_left_alone() -> None:
    assert replacing.found(nn.Sequential(MambaRMSNormGated(16, 16)).requires_grad_(False)) == ()
