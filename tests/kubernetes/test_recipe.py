"""A recipe of a mixture of experts, from its spec file to an adapter, on a real cluster: two processes, sharded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load
from whole_runs import Place, place

import family_runs
from lorajob_runtime.contract import catalog

__all__ = ["place"]

pytestmark = pytest.mark.slow

FAMILY = "glm-4.5"
STEPS = 6
SETTINGS = [f"train.maxSteps={STEPS}", "train.saveSteps=3", "train.batchSize=2", "train.gradientAccumulation=1"]
SETTINGS += ["train.learningRate=1e-2", "report.samples.count=1", "report.samples.maxNewTokens=2"]


def test_a_mixture_of_experts_is_trained_from_its_recipe_with_its_weights_sharded(place: Place, tmp_path: Path) -> None:
    recipe = family_runs.RECIPES[FAMILY]
    family_runs.put_on_hub(FAMILY, place.hub, tmp_path)
    data = family_runs.write_data(FAMILY, tmp_path, rows=40)

    done = place.lorajob(
        *("submit", "-f", str(recipe.file), f"--data={data}", "--name=recipe", "--gpus=2", "--sharding=fsdp"),
        # the model of that name is large, the one on this hub is not
        *("--memory=6Gi", "--yes", "--wait", *family_runs.settings(*SETTINGS)),
        seconds=600,
    )

    assert done.returncode == 0, done.stderr + place.lorajob("logs", "recipe").stdout
    log = place.events("recipe")
    reports = {event["name"]: event for event in log if event["event"] == "report"}
    assert set(reports["targets"]["groups"]) == {"attention", "dense", "shared", "experts"}
    assert (reports["decided"]["processes"], reports["decided"]["sharded"]) == (2, True)
    assert place.steps("recipe") == list(range(1, STEPS + 1))
    assert place.checkpoints("recipe") == [3, 6]
    trained = load(place.stored("recipe", "adapter/adapter_model.safetensors"))
    assert any("mlp.experts" in name for name in trained)
    assert all(np.abs(values).max() > 0 for name, values in trained.items() if "lora_B" in name)
    config = json.loads(place.stored("recipe", "adapter/adapter_config.json"))
    assert config["base_model_name_or_path"] == catalog.get(recipe.model).ids["hf"]
