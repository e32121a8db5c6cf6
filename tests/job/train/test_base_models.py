"""Training a base model for chat, and the wishes that a model with one weight for head and embedding cannot fulfil."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import ForkedRanks
from training_runs import random_rows, write_run
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from lorajob_runtime.contract import events, spec
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import architecture, config_files, lora_weights
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.train.lora import attach

ONE_STEP = {"train": {"maxSteps": 1}}


@pytest.mark.parametrize("stored", [{"eos_token_id": 0, "top_p": 0.9}, None])
def test_a_checkpoint_stops_where_training_ended_answers(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path, stored: dict[str, Any] | None
) -> None:
    """What the data's answers end with has id 2 in these runs."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "generation_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    if stored is not None:
        (base / "generation_config.json").write_text(json.dumps(stored))
    folder = write_run(tmp_path / "run", base, random_rows(9), ONE_STEP)

    ranks.train(folder)

    known = GenerationConfig.from_pretrained(folder.checkpoint(1))
    assert known.eos_token_id == [0, 2]
    assert known.top_p == (stored or {}).get("top_p", known.top_p)


def tied(path: Path, *, is_tied: bool) -> Path:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 320}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": is_tied}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(path)
    return path


def shapes(path: Path) -> Architecture:
    found = architecture.read(config_files.read_config(path / "config.json"))
    assert found is not None
    return found


@pytest.mark.parametrize("targets", [("lm_head",), ("q_proj", "lm_head")])
def test_an_adapter_on_a_head_that_is_the_embedding_is_refused_before_and_after_loading(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    wanted = LoraSpec(targets=targets)
    path = tied(tmp_path, is_tied=True)
    model = AutoModelForCausalLM.from_pretrained(path)

    with pytest.raises(ConfigError, match=r"'lm_head': .* one weight for its head and its embedding"):
        lora_weights.adapted(shapes(path), wanted, experts=False)
    with pytest.raises(ConfigError, match=r"'lm_head': .* one weight for its head and its embedding"):
        attach.attach(model, wanted, seed=1, experts=False)


def test_a_head_of_its_own_takes_one_and_merges_to_the_same_model(tmp_path: Path) -> None:
    path = tied(tmp_path, is_tied=False)
    wanted = LoraSpec(targets=("q_proj", "lm_head"), dropout=0.0)
    model: Any = attach.attach(AutoModelForCausalLM.from_pretrained(path), wanted, seed=1, experts=False)
    for parameter in attach.trained(model).values():
        torch.nn.init.normal_(parameter, std=0.05)
    ids = torch.arange(5, 25).unsqueeze(0)
    adapted = model.eval()(input_ids=ids).logits

    merged = model.merge_and_unload()(input_ids=ids).logits

    assert len(lora_weights.adapted(shapes(path), wanted, experts=False)) == 2
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)


def test_a_tied_head_is_refused_by_a_whole_training_with_10(ranks: ForkedRanks, tmp_path: Path) -> None:
    path = tied(tmp_path / "model", is_tied=True)
    folder = write_run(tmp_path / "run", path, random_rows(9), {"lora": {"targets": ["lm_head"]}})

    assert ranks.end_of(folder) == 10
    assert "embedding" in json.loads(folder.cause(0).read_text())["message"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("embed_tokens", "an embedding"), ("model.embed_tokens", "an embedding"), ("input_layernorm", "a norm")],
)
def test_what_is_there_and_gets_no_adapter_is_called_what_it_is(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r}: that is {kind}, which gets no adapter; .* has down_proj"):
        lora_weights.adapted(shapes(tied(tmp_path, is_tied=False)), LoraSpec(targets=(name,)), experts=False)


def test_auto_leaves_a_tied_head_alone(tmp_path: Path) -> None:
    path = tied(tmp_path, is_tied=True)

    chosen = lora_weights.adapted(shapes(path), spec.LoraSpec(), experts=False)

    assert {each.matrix.name for each in chosen} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_what_peft_warns_of_is_told_by_the_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    said: list[str] = []
    whole = attach.get_peft_model

    def warning(*given: Any) -> Any:
        warnings.warn("this changes what\n is trained", UserWarning, stacklevel=1)
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        return whole(*given)

    monkeypatch.setattr(attach, "get_peft_model", warning)

    attach.attach(AutoModelForCausalLM.from_pretrained(tiny_model), LoraSpec(), seed=1, experts=False, warn=said.append)

    assert said == ["PEFT: this changes what is trained"]


def test_numbers_that_are_broken_before_training_are_not_blamed_on_the_learning_rate(
    ranks: ForkedRanks, tmp_path: Path, tiny_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    folder = write_run(tmp_path / "run", tmp_path / "broken", random_rows(8))

    assert ranks.end_of(folder) == 15

    cause = json.loads(folder.cause(0).read_text())
    assert "at step 1" in cause["message"]
    assert "model.layers.1.mlp.up_proj.weight has numbers that are not finite" in cause["message"]
    assert "learningRate" not in cause["message"] + cause["hint"]
    said = [event["message"] for event in events.read(folder.events) if event.get("name") == "warning"]
    assert said == [], "nor is anything said of documents that cannot share a micro-batch"
