"""`lorajob artifacts convert`: what is converted, what is said of it, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calling import Call
from family_models import FamilyModels, save, shake
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.publish.adapter_info import AdapterInfo
from lorajob_runtime.train.lora import attach


@pytest.fixture
def made(family_models: FamilyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Makes `runs/NAME` with the published adapter of a run on a family's model."""

    def make(name: str, family: str, **settings: Any) -> Path:
        folder = tmp_path / "runs" / name / "adapter"
        folder.mkdir(parents=True)
        model = attach.attach(family_models.load(family), LoraSpec(dropout=0.0, **settings), seed=3, experts=True)
        base = str(family_models.folder(family))
        save(shake(model), folder, base=base)
        AdapterInfo(run=name, model=base, source=base, revision="", system=None, thinking=False).write(folder)
        # progress bars of loading
        capsys.readouterr()
        return folder

    return make


def test_a_run_is_converted_for_vllm_and_the_command_that_serves_it_is_shown(
    lorajob: Call, made: Any, family_models: FamilyModels
) -> None:
    adapter = made("medical", "minimax-m2", rank=24)

    outcome = lorajob("artifacts", "convert", "medical", "--output", "medical-vllm")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "medical-vllm: the experts of 3 layers written separately, 8 in each",
        f"  vllm serve {family_models.folder('minimax-m2')} --enable-lora --max-lora-rank 32"
        " --lora-modules medical-vllm=medical-vllm",
    ]
    names = load_file(adapter.parents[2] / "medical-vllm/adapter_model.safetensors")
    assert "base_model.model.model.layers.2.block_sparse_moe.experts.7.w2.lora_B.weight" in names
    assert json.loads((adapter.parents[2] / "medical-vllm/lorajob.json").read_text())["run"] == "medical"


def test_of_hunyuan_it_says_how_a_vllm_without_a_class_for_it_loads_experts(lorajob: Call, made: Any) -> None:
    made("zhenhuan", "hunyuan")

    outcome = lorajob("artifacts", "convert", "runs/zhenhuan", "--layout", "vllm", "--output", "out")

    assert outcome.code == 0
    assert "vLLM 0.33 runs Hunyuan on transformers' code" in outcome.err
    assert "--enable-mixed-moe-lora-format" in outcome.err


def test_an_adapter_without_experts_is_copied_and_that_is_said(lorajob: Call, made: Any) -> None:
    made("poems", "qwen3")

    outcome = lorajob("artifacts", "convert", "poems", "--layout", "per-expert", "--output", "deep/er/out")

    assert outcome.code == 0
    assert outcome.out == "deep/er/out: no routed expert has an adapter, so the adapter was copied unchanged\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing", "--output", "out"], 10, "no run 'nothing' in runs: it must be a run's name there, or a folder"),
        (["runs", "--output", "out"], 10, "holds no adapter"),
        (["zhenhuan", "--output", "runs"], 2, "--output is 'runs': it exists already, it must be a new folder"),
        (["zhenhuan"], 2, "Missing option '--output'"),
        (["zhenhuan", "--layout", "gguf", "--output", "out"], 2, "'gguf' is not one of 'vllm', 'per-expert'"),
        (["zhenhuan", "--output", "out"], 10, "vLLM takes no adapter of lm_head"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_nothing_is_written(
    lorajob: Call, made: Any, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    made("zhenhuan", "glm-4.5", targets=("lm_head", "down_proj"))

    outcome = lorajob("artifacts", "convert", *arguments)

    assert outcome.code == code
    assert said in outcome.err.splitlines()[0]
    assert outcome.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_experts_of_a_model_that_only_its_files_tell_of_are_refused_by_its_type(
    lorajob: Call, made: Any, family_models: FamilyModels, tmp_path: Path
) -> None:
    folder = made("odd", "glm-4.5")
    base = shutil.copytree(family_models.folder("glm-4.5"), tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "odd_moe", "architectures": ["Odd"]}))
    AdapterInfo(run="odd", model="odd", source=str(base), revision="", system=None, thinking=False).write(folder)

    outcome = lorajob("artifacts", "convert", "odd", "--output", "out")

    assert outcome.code == 10
    assert "the adapter is of a model of type odd_moe, whose experts' names are not known" in outcome.err
