"""What a run does for a GPU's sake, as far as it can be seen without one: counted, not timed."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import varlen
from transformers import AutoModelForCausalLM, masking_utils

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.models import memory_plan
from lorajob_runtime.system import device_errors
from lorajob_runtime.train import session
from lorajob_runtime.train.base_model import attention
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.parallel import sharding


def tiny(path: Path) -> Any:
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.set_attn_implementation(attention.NAME)
    return model


def test_on_the_newest_gpus_flash_is_taken_where_torch_would_take_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    query = torch.zeros(8, 2, 64, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 8], dtype=torch.int32)
    # a GPU on which torch finds nothing that speaks against cuDNN
    monkeypatch.setattr(varlen, "_cudnn_rejection_reasons", lambda *_, **__: [])
    chosen = [varlen._select_backend(query, query, query, bounds, bounds, 8, [-1, 0])]

    attention.register()

    chosen.append(varlen._select_backend(query, query, query, bounds, bounds, 8, [-1, 0]))
    assert chosen[1] == varlen._FLASH_ATTENTION_BACKEND
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(("takes", "heads"), [(True, 1), (False, 1), (True, 2), (False, 2)])
def test_fewer_key_heads_are_named_only_to_a_torch_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, takes: bool, heads: int
) -> None:
    given: dict[str, Any] = {}

    def newer(q: Any, *_: Any, scale: float, window_size: Any, enable_gqa: bool = False) -> Any:
        given["enable_gqa"] = enable_gqa
        return q

    def older(q: Any, *_: Any, scale: float, window_size: Any) -> Any:
        return q

    monkeypatch.setattr(varlen, "varlen_attn", newer if takes else older)
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    attention._takes_gqa.cache_clear()
    query, key = torch.zeros(1, 2, 3, 8), torch.zeros(1, heads, 3, 8)

    output, _ = attention.document_attention(torch.nn.Identity(), query, key, key, None, scaling=1.0)

    attention._takes_gqa.cache_clear()
    assert output.shape == (1, 3, 2, 8)
    assert given == ({"enable_gqa": heads == 1} if takes else {})


def test_transformers_makes_no_mask_and_does_not_look_for_documents(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda ids: looked.append(ids))
    model = tiny(tiny_model)

    model(**model_module.packed_inputs(torch.arange(5, 17)[None], [5, 7]))

    assert looked == []


@pytest.mark.parametrize("documents", [[1], [12], [5, 7], [1, 1, 10]])
def test_positions_and_bounds_go_to_the_device_as_one_copy(documents: list[int]) -> None:
    inputs = model_module.packed_inputs(torch.arange(12)[None][:, : sum(documents)], documents)

    positions, bounds = inputs["position_ids"], inputs["cu_seq_lens_q"]
    assert positions.untyped_storage().data_ptr() == bounds.untyped_storage().data_ptr()
    assert (positions.dtype, bounds.dtype) == (torch.int32, torch.int32)
    assert positions[0].tolist() == [place for length in documents for place in range(length)]
    assert bounds.tolist() == inputs["document_bounds"] == [0, *itertools.accumulate(documents)]


class Watched(torch.Tensor):
    """A tensor that writes down what is done with it."""

    done: list[str] = []  # noqa: RUF012 of the test

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.done.append(f"{function.__name__} {(kwargs or {}).get('non_blocking', '')}".strip())
        return args[0]


@pytest.mark.parametrize(("device", "expected"), [("cuda", ["pin_memory", "to True"]), ("cpu", ["to"])])
def test_numbers_go_from_pinned_memory_to_a_gpu_and_only_there(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]
) -> None:
    Watched.done = []
    monkeypatch.setattr(torch, "from_numpy", lambda array: torch.tensor(array).as_subclass(Watched))

    model_module.on_device(np.arange(3), torch.device(device))

    assert Watched.done == expected


def test_without_flash_no_layer_asks_the_device_for_the_bounds(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    tolist = torch.Tensor.tolist
    model = tiny(tiny_model)
    inputs = model_module.packed_inputs(torch.arange(5, 17)[None], [5, 7])
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(self) or tolist(self))

    model(**inputs)

    assert asked == []


def test_every_way_to_attend_has_a_name_in_the_report(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(tiny_model)
    names = [attention.backend(model, torch.bfloat16)]
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    names.append(attention.backend(model, torch.bfloat16))
    model.set_attn_implementation("sdpa")
    names.append(attention.backend(model, torch.bfloat16))

    assert names == ["documents", "flash", "sdpa"]


def test_random_state_is_kept_for_recomputing_only_where_a_model_draws(tiny_model: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}
    quiet = AutoModelForCausalLM.from_pretrained(tiny_model)
    drops = GPT2LMHeadModel(GPT2Config(**sizes))
    none = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, summary_first_dropout=0))

    assert [model_module.draws_random_numbers(model) for model in (quiet, drops, none)] == [False, True, False]


def test_the_estimate_and_the_measurement_reckon_with_the_same_gathered_layers(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a part of sharded weights that is the whole
    monkeypatch.setattr(sharding, "DTensor", torch.nn.Parameter)
    bare = AutoModelForCausalLM.from_pretrained(tiny_model)
    layer = sum(item.nbytes for item in bare.model.layers[0].parameters())
    edges = sum(item.nbytes for item in [bare.model.embed_tokens.weight, bare.model.norm.weight])

    assert sharding.gathered_bytes(bare) == edges + 3 * layer
    assert memory_plan.GATHERED_LAYERS == 3


def test_fp32_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone:
        def __init__(self, **_: Any) -> None: ...

        def wait_for_everyone(self) -> None: ...

    before = torch.backends.cuda.matmul.fp32_precision
    monkeypatch.setattr(session, "Accelerator", Alone)
    torch.backends.cuda.matmul.fp32_precision = "tf32"

    session.join_process_group(SimpleNamespace(device="cpu"))  # type: ignore[arg-type]

    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    torch.backends.cuda.matmul.fp32_precision = before


def test_a_gpu_without_kernels_ends_the_run_for_good() -> None:
    error = torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")

    assert not device_errors.may_pass(error)
    assert isinstance(device_errors.of_this_gpu(error), ConfigError)
    assert device_errors.of_this_gpu(torch.AcceleratorError("CUDA error: unspecified launch failure")) is None
    assert device_errors.of_this_gpu(OSError("no kernel image is available")) is None
