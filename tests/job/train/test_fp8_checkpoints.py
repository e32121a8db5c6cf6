"""FP8 checkpoints are read as the numbers they stand for, whole or in parts, and train like plain ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import ForkedRanks
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from training_runs import random_rows, steps_of, write_run

from families import tiny
from fp8_checkpoints import dequantise, quantise, write
from lorajob_runtime.contract.errors import LorajobError, ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.models import quantization
from lorajob_runtime.models.quantization import Fp8Blocks
from lorajob_runtime.train.base_model import fp8, loading

CPU = torch.device("cpu")
BLOCKS = Fp8Blocks(rows=128, columns=128)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A MiniMax-M2 in FP8, and its numbers in fp32. No size is a whole number of blocks, nor are a rank's rows."""
    folder = tmp_path_factory.mktemp("fp8")
    model = tiny("minimax-m2", folder / "model", hidden_size=192, intermediate_size=160, head_dim=72, rotary_dim=24)
    return write(model, folder)


def load(path: Path, dtype: torch.dtype = torch.float32, **model: Any) -> Any:
    return loading.load(path, ModelSpec(name="m", **model), dtype, CPU)


def test_every_weight_is_what_its_blocks_stand_for(checkpoints: tuple[Path, Path]) -> None:
    quantised, plain = checkpoints

    model, expected = load(quantised), load(plain).state_dict()

    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not hasattr(model.config, "quantization_config"), "PEFT would refuse it, or take it for quantised"
    assert model.name_or_path == str(quantised)
    assert {item.dtype for item in load(quantised, torch.bfloat16).parameters()} == {torch.bfloat16}


class Stored:
    """A tensor with the interface of a safetensors slice."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._tensor[index]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_part_of_a_weight_is_that_part_of_the_whole(data: st.DataObject) -> None:
    rows, columns = data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    quantised, scales = quantise(torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)))
    top, left = data.draw(st.tuples(st.integers(0, rows), st.integers(0, columns)))
    bottom, right = data.draw(st.tuples(st.integers(top, rows), st.integers(left, columns)))

    weight = fp8.Dequantized("w", Stored(quantised), Stored(scales), BLOCKS, torch.float32, CPU)

    whole = dequantise(quantised, scales)
    assert torch.equal(weight[...], whole)
    assert torch.equal(weight[top:bottom, left:right], whole[top:bottom, left:right])
    assert torch.equal(weight[(slice(top, bottom),)], whole[top:bottom])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_many_blocks_at_a_time_are_the_same_numbers(data: st.DataObject) -> None:
    rows, columns = data.draw(st.tuples(st.integers(1, 700), st.integers(1, 300)))
    quantised, scales = quantise(torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)))
    top = data.draw(st.integers(0, rows - 1))
    weight = fp8.Dequantized("w", Stored(quantised), Stored(scales), BLOCKS, torch.float32, CPU)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fp8.Dequantized, "_rows_together", lambda *_: 128 * data.draw(st.integers(1, 7)))
        assert torch.equal(weight[(slice(top, rows),)], dequantise(quantised, scales)[top:])


def test_the_bytes_go_to_the_device_as_they_are_stored_and_are_dequantised_there() -> None:
    quantised, scales = quantise(torch.randn(300, 200))
    moved: list[tuple[torch.dtype, str]] = []

    class Watched(torch.Tensor):
        def to(self, device: Any, *_: Any, **__: Any) -> torch.Tensor:
            moved.append((self.dtype, str(device)))
            return self.as_subclass(torch.Tensor).to(device)

    elsewhere = torch.device("meta")
    stored = [Stored(tensor.as_subclass(Watched)) for tensor in (quantised, scales)]
    weight = fp8.Dequantized("w", *stored, BLOCKS, torch.bfloat16, elsewhere)

    part = weight[10:290, 5:]

    assert (part.device, part.dtype, part.shape) == (elsewhere, torch.bfloat16, (280, 195))
    assert moved == [(torch.float8_e4m3fn, "meta"), (torch.float32, "meta")]


@pytest.mark.parametrize(
    ("scales", "blocks"),
    [
        (torch.full([], 0.5), Fp8Blocks(rows=None, columns=None)),
        (torch.full([1], 0.5), BLOCKS),
        (torch.full([300, 1], 0.5), Fp8Blocks(rows=None, columns=None)),
        (torch.full([3, 2], 126, dtype=torch.uint8), BLOCKS),
    ],
    ids=["one a tensor", "one in a list", "one a row", "exponents"],
)
def test_scales_of_other_shapes_and_types_are_understood(scales: torch.Tensor, blocks: Fp8Blocks) -> None:
    quantised = torch.randn(300, 200).to(torch.float8_e4m3fn)

    weight = fp8.Dequantized("w", Stored(quantised), Stored(scales), blocks, torch.float32, CPU)

    assert torch.equal(weight[...], quantised.float() * 0.5)


@pytest.mark.parametrize("grid", [[2, 2], [3, 3], [300], [3, 2, 1]])
def test_scales_that_are_not_one_a_block_are_refused(grid: list[int]) -> None:
    quantised = torch.zeros(300, 200).to(torch.float8_e4m3fn)

    with pytest.raises(ModelError, match=r"w has shape \[300, 200\] and scales of .*: they must be one a block"):
        fp8.Dequantized("w", Stored(quantised), Stored(torch.ones(grid)), BLOCKS, torch.float32, CPU)


@pytest.mark.slow
def test_two_ranks_that_read_half_of_it_each_train_as_one_does_on_the_plain_numbers(
    ranks: ForkedRanks, checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    quantised, plain = checkpoints
    train = {"batchSize": 2, "gradientAccumulation": 2, "maxSteps": 3, "learningRate": 1e-2}
    whole = write_run(tmp_path / "whole", plain, random_rows(20), {"train": train})
    sharded = {"train": train | {"gradientAccumulation": 1, "sharding": "fsdp"}}
    halves = write_run(tmp_path / "halves", quantised, random_rows(20), sharded)

    ranks.train(whole)
    ranks.train(halves, processes=2)

    losses = [[step["loss"] for step in steps_of(folder)] for folder in (whole, halves)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_weight_without_its_scales_is_named(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(checkpoints[0], tmp_path / "broken"))
    stored = load_file(broken / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    del stored[name + "_scale_inv"]
    save_file(stored, broken / "model.safetensors", {"format": "pt"})

    with pytest.raises(ModelError, match=f"{name} is stored as F8_E4M3: it must be F8_E4M3 with its scales in"):
        load(broken)


def test_weights_that_are_missing_end_the_load_and_are_not_made_up(
    checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(checkpoints[1], tmp_path / "broken"))
    stored = load_file(broken / "model.safetensors")
    del stored["model.layers.1.self_attn.q_proj.weight"]
    save_file(stored, broken / "model.safetensors", {"format": "pt"})

    with pytest.raises(
        ModelError, match=r"1 weights of MiniMaxM2ForCausalLM are not in .*, the first model\.layers\.1"
    ):
        load(broken)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"quant_method": "gptq"}, "m: its weights are quantised by 'gptq': only FP8 with scales is dequantised"),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, "m: its weights are quantised by 'fp8' with fp4 experts"),
        ({"quant_method": "fp8", "weight_block_size": "big"}, "weight_block_size 'big': it must be two numbers"),
    ],
)
def test_weights_quantised_otherwise_are_refused_by_their_config_alone(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(LorajobError) as raised:
        quantization.fp8_blocks("m", {"quantization_config": stored})

    assert message in raised.value.message


def test_the_class_that_a_config_names_outranks_its_model_type(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    renamed = Path(shutil.copytree(checkpoints[1], tmp_path / "renamed"))
    config = json.loads((renamed / "config.json").read_text())
    (renamed / "config.json").write_text(json.dumps(config | {"model_type": "minimax"}))

    assert type(load(renamed)).__name__ == "MiniMaxM2ForCausalLM"
