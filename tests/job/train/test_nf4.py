"""Adapters on 4-bit base weights: they train, resume, reload and answer as on plain ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import random_rows, run_training, steps_of, write_run

from families import tiny
from fp8_checkpoints import write
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec, ModelSpec
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train.base_model import loading
from lorajob_runtime.train.lora import attach, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks

CPU = torch.device("cpu")
NF4 = ModelSpec(name="m", quantize="nf4")
TOKENS = torch.arange(3, 43).view(2, 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 whose layers are large enough for whole blocks of 64 weights."""
    folder: Path = tiny("qwen3", tmp_path_factory.mktemp("nf4") / "model", hidden_size=64, intermediate_size=128)
    return folder


def trained_once(model: Path, dropout: float = 0.0) -> Any:
    """A fused model on 4-bit weights, its adapter no longer zero."""
    base = loading.load(model, NF4, torch.float32, CPU)
    base.requires_grad_(False)
    tuned = attach.attach(base, LoraSpec(dropout=dropout), seed=1, experts=False)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return tuned


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    return {name: item.grad for name, item in model.named_parameters() if item.grad is not None}


def test_the_linear_layers_of_the_decoder_are_four_bits_a_weight(model: Path) -> None:
    loaded = loading.load(model, NF4, torch.bfloat16, CPU)

    packed = {name for name, item in loaded.named_parameters() if item.dtype == torch.uint8}

    assert len(packed) == 3 * 7
    assert loaded.model.layers[0].mlp.up_proj.weight.numel() == 64 * 128 // 2
    assert {item.dtype for name, item in loaded.named_parameters() if name not in packed} == {torch.bfloat16}


def test_a_report_counts_the_numbers_that_packed_bytes_stand_for(model: Path) -> None:
    plain = loading.load(model, ModelSpec(name="m"), torch.float32, CPU)

    report = attach.report(trained_once(model), dropout=0.0)

    assert report.all_parameters - report.trained_parameters == plain.num_parameters()


def test_fp8_weights_are_quantised_from_the_numbers_they_stand_for(tmp_path: Path) -> None:
    big = tiny("qwen3", tmp_path / "model", hidden_size=128, intermediate_size=192)
    quantised, plain = write(big, tmp_path)

    logits = [loading.load(path, NF4, torch.float32, CPU)(TOKENS).logits for path in (quantised, plain)]

    assert torch.equal(logits[0], logits[1])


def test_fused_layers_give_pefts_loss_and_gradients(model: Path) -> None:
    plain, ours = trained_once(model), trained_once(model)
    assert linear.fuse(ours, DropoutMasks()) == 3 * 7

    expected, found = gradients(plain), gradients(ours)

    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_gradients_are_the_same_after_an_evaluation(model: Path) -> None:
    tuned = trained_once(model)
    linear.fuse(tuned, DropoutMasks())
    before = gradients(tuned)
    tuned.eval()
    with torch.no_grad():
        tuned.generate(input_ids=TOKENS, max_new_tokens=2, do_sample=False)

    after = gradients(tuned)

    assert all(torch.equal(after[name], gradient) for name, gradient in before.items())


def test_dropout_is_drawn_from_the_masks_of_the_step(model: Path) -> None:
    tuned, masks = trained_once(model, dropout=0.5), DropoutMasks()
    linear.fuse(tuned, masks)

    def loss(step: int) -> float:
        masks.start(42, step, 0, 0)
        return float(tuned.train()(input_ids=TOKENS, labels=TOKENS).loss.detach())

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


@pytest.mark.slow
def test_a_run_learns_and_resumed_it_is_bit_for_bit_the_run_that_went_through(model: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "model": {"quantize": "nf4"},
        "lora": {"dropout": 0.1},
        "train": {"batchSize": 2, "gradientAccumulation": 2, "maxSteps": 8, "saveSteps": 4, "learningRate": 1e-2},
    }
    rows, held_out = random_rows(40), random_rows(5, seed=1)
    folder = write_run(tmp_path, model, rows, settings, eval_rows=held_out)
    assert run_training(folder) == 0
    losses = [step["loss"] for step in steps_of(folder)]
    adapter = (folder.checkpoint(8) / layout.ADAPTER_WEIGHTS).read_bytes()
    (folder.checkpoint(8) / layout.MANIFEST).unlink()

    assert run_training(write_run(tmp_path, model, rows, settings, resume_step=4, attempt=2)) == 0

    assert losses[-1] < losses[0] - 0.1
    assert [step["loss"] for step in steps_of(folder)] == [*losses, *losses[4:]]
    assert (folder.checkpoint(8) / layout.ADAPTER_WEIGHTS).read_bytes() == adapter
    assert checkpoint.steps(folder) == [4, 8]


@pytest.mark.slow
def test_plain_peft_loads_the_adapter_with_no_difference(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    tuned = trained_once(model).eval()
    tuned.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = tuned(TOKENS).logits

        again = PeftModel.from_pretrained(loading.load(model, NF4, torch.float32, CPU), str(tmp_path)).eval()

        assert torch.equal(again(TOKENS).logits, expected)
    assert all(name.endswith(".weight") for name in load_file(tmp_path / layout.ADAPTER_WEIGHTS))


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_only_runs_that_quantise_load_bitsandbytes(quantize: str | None) -> None:
    program = (
        "import sys; from lorajob_runtime.contract.spec import ModelSpec;"
        "from lorajob_runtime.models import quantization;"
        f"quantization.block_bitsandbytes_import(ModelSpec(quantize={quantize!r}));"
        "import importlib.util as u, json; print(json.dumps(u.find_spec('bitsandbytes') is not None))"
    )

    found = json.loads(subprocess.check_output([sys.executable, "-c", program]))

    assert found == (quantize is not None)


def test_what_bitsandbytes_lacks_on_a_machine_is_said_in_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lorajob_runtime.train.lora.nf4", raising=False)
    monkeypatch.delitem(sys.modules, "bitsandbytes.nn", raising=False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(ConfigError, match=r"model\.quantize is 'nf4': bitsandbytes does not work on this"):
        loading.load(model, NF4, torch.float32, CPU)
