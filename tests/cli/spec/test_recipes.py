"""The spec files of the five recipes say what was published, number by number, and the catalog's recipes agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from calling import Call
from family_tokenizers import NOT_THERE, SHARED
from lorajob.spec.resolve import resolve
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.kubernetes import SPEC_ANNOTATION
from lorajob_runtime.contract.spec import RunSpec, parse, row_slice
from lorajob_runtime.train.schedule import Schedule

EXAMPLES = Path(__file__).parents[3] / "examples"
ZHENHUAN = "现在你要扮演皇帝身边的女人--甄嬛"
SEVEN = "auto"
"""q, k, v, o, gate, up and down: what `auto` takes, of every expert and of the shared ones too."""

USUAL: dict[str, Any] = {
    "data": {"max_length": 1024, "thinking": False, "overflow": "truncate"},
    "lora": {"rank": 8, "alpha": 32, "dropout": 0.1, "targets": SEVEN, "experts": "auto", "router": False},
    "train": {
        "epochs": 3,
        "max_steps": None,
        "learning_rate": 1e-4,
        "batch_size": 4,
        "gradient_accumulation": 4,
        "scheduler": "linear",
        "warmup": 0,
        "weight_decay": 0,
        "max_grad_norm": 1.0,
        "seed": 42,
        "logging_steps": 10,
        "save_steps": 100,
    },
}
"""What four of the five tutorials share."""

RECIPES: dict[str, dict[str, Any]] = {
    "qwen3-8b-zhenhuan": {
        "model": {"name": "qwen3-8b"},
        "data": {"source": "huanhuan.json", "system": ZHENHUAN},
        "swanlab": {"project": "Qwen3-Lora", "experiment": "Qwen3-8B-LoRA-experiment"},
    },
    "qwen2.5-coder-7b-law": {
        "model": {"name": "qwen2.5-coder-7b"},
        "data": {
            "source": "law.jsonl",
            "columns": {"system": "instruction", "instruction": "input", "output": "output"},
            "rows": "5:5000",
            "eval_rows": ":5",
            "max_length": 384,
            "system": None,
        },
        "lora": {"rank": 64, "alpha": 16},
        "train": {"epochs": 1, "batch_size": 2, "gradient_accumulation": 8},
        "swanlab": {"project": "Qwen2.5-Coder-LoRA-Law", "experiment": "7b"},
        "samples": {"before": 3, "count": 5, "every": "epoch", "max_new_tokens": 512},
    },
    "hunyuan-a13b-zhenhuan": {
        "model": {"name": "hunyuan-a13b"},
        "data": {"source": "huanhuan.json", "system": ZHENHUAN},
        "train": {"epochs": 1},
        "swanlab": {
            "project": "Hunyuan-A13B-Instruct-Lora",
            "experiment": "Hunyuan-A13B-Instruct-Lora-experiment",
        },
    },
    "glm-4.5-air-zhenhuan": {
        "model": {"name": "glm-4.5-air"},
        "data": {"source": "huanhuan.json", "system": ZHENHUAN},
        "train": {"logging_steps": 2, "save_steps": 10},
        "swanlab": {"project": "self-llm", "experiment": "glm45_air_lora_experiment"},
    },
    "minimax-m2-medical": {
        "model": {"name": "minimax-m2"},
        "data": {"source": "medical.jsonl", "system": None},
        # its page reports under Qwen3's name, a copying mistake
        "swanlab": {"project": "MiniMax-M2-Lora", "experiment": "MiniMax-M2-LoRA-experiment"},
    },
}

HUBS = {
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen2.5-coder-7b": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "hunyuan-a13b": "Tencent-Hunyuan/Hunyuan-A13B-Instruct",
    "glm-4.5-air": "ZhipuAI/GLM-4.5-Air",
    "minimax-m2": "MiniMaxAI/MiniMax-M2",
}

STEPS = {
    "qwen3-8b-zhenhuan": (3729, 702),
    "qwen2.5-coder-7b-law": (5200, 313),
    "hunyuan-a13b-zhenhuan": (3729, 234),
    "glm-4.5-air-zhenhuan": (3729, 702),
}
"""Rows of the file, and optimizer steps on one GPU. The documents lost each epoch's last batch: 699, 233, 312."""


def _spec(name: str) -> RunSpec:
    return resolve([EXAMPLES / f"{name}.yaml"], {}, []).spec


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_file_says_what_was_published(name: str) -> None:
    spec, own = _spec(name), RECIPES[name]
    wanted = {group: USUAL[group] | own.get(group, {}) for group in USUAL}
    wanted |= {"model": {"name": own["model"]["name"], "source": None, "quantize": None, "trust_remote_code": False}}

    for group, values in wanted.items():
        found = {key: getattr(getattr(spec, group), key) for key in values}
        assert found == values, group
    assert {key: getattr(spec.report.swanlab, key) for key in own["swanlab"]} == own["swanlab"]
    for key, value in own.get("samples", {}).items():
        assert getattr(spec.report.samples, key) == value
    assert catalog.get(spec.model.name).ids["modelscope"] == HUBS[spec.model.name]


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_s_own_recipe_trains_as_its_file_does(name: str) -> None:
    """So `lorajob submit --model …` with one's own data is the tutorial too."""
    file = _spec(name)

    bare = resolve([], {"model.name": file.model.name}, []).spec

    assert bare.train == file.train
    assert bare.lora == file.lora
    assert (bare.data.max_length, bare.data.thinking) == (file.data.max_length, file.data.thinking)


@pytest.mark.parametrize("name", STEPS)
def test_a_recipe_takes_the_steps_that_its_rows_make(name: str) -> None:
    rows, steps = STEPS[name]
    spec = _spec(name)
    trained = len(range(rows)[row_slice(spec.data.rows)])

    plan = Schedule(
        rows=trained,
        global_batch=spec.train.batch_size * spec.train.gradient_accumulation,
        epochs=spec.train.epochs,
        max_steps=spec.train.max_steps,
        seed=spec.train.seed,
    )

    assert plan.total_steps == steps


ALPACA = {"instruction": "你是谁", "input": "？", "output": "我是甄嬛，家父是大理寺少卿甄远道。"}
ROWS: dict[str, Any] = {
    "qwen2.5-coder-7b-law": {"instruction": "你是一个法律专家", "input": "合同何时生效？", "output": "成立时。"},
    "minimax-m2-medical": {"conversations": [{"from": "human", "value": "发烧？"}, {"from": "gpt", "value": "就诊。"}]},
}
"""A row of the data that a recipe is for, where it is not huanhuan's."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_with_its_data_is_a_whole_submit_on_the_gpus_it_asks_for(
    name: str, lorajob: Call, tmp_path: Path
) -> None:
    platform = {
        "image": "registry.example/lorajob:9",
        "storage": {"uri": "s3://bucket/lora"},
        "resources": {"gpuMemory": "79Gi"},
    }
    (tmp_path / "platform.yaml").write_text(json.dumps(platform))
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROWS.get(name, ALPACA)) + "\n") * 6)

    outcome = lorajob(
        *("submit", "-f", str(EXAMPLES / f"{name}.yaml"), "--data", "rows.jsonl"),
        *("--dry-run=client", "--platform", "platform.yaml"),
    )

    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    job, *owned = yaml.safe_load_all(outcome.out)
    sent = parse(json.loads(job["spec"]["template"]["metadata"]["annotations"][SPEC_ANNOTATION]))
    file = _spec(name)
    assert (sent.model, sent.lora, sent.train, sent.report) == (file.model, file.lora, file.train, file.report)
    assert dataclasses.replace(sent.data, source=None) == dataclasses.replace(file.data, source=None)
    assert [each["kind"] for each in owned] == ["Service"] * (file.resources.nodes > 1) + ["ConfigMap"]


def test_huanhuan_has_the_rows_that_the_steps_follow_from() -> None:
    if not SHARED.is_dir():
        pytest.skip(NOT_THERE)

    rows = json.loads((SHARED / "datasets" / "huanhuan.json").read_text("utf-8"))

    assert len(rows) == STEPS["qwen3-8b-zhenhuan"][0]
