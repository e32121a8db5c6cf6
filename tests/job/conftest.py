"""A published run of the real SmolLM2, and one of a random model for what needs no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorajob_runtime import publish
from lorajob_runtime.fetch import FetchedModel
from lorajob_runtime.system.environment import Environment
from small_models import finished_run, own_cache, smollm2, tiny_llama

SYSTEM = "You are the keeper of a lighthouse."


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with the published runs `keeper` (SmolLM2) and `tiny` (random)."""
    folder = tmp_path_factory.mktemp("storage")
    model, _ = smollm2()
    spec = {"name": "keeper", "data": {"system": SYSTEM}}
    run, parsed = finished_run(folder / "keeper", model.path, spec=spec, strength=0.004)
    publish.publish(run, spec=parsed, model=model)
    path = tiny_llama(folder / "tiny-llama", model.path)
    spec = {"name": "tiny", "model": {"name": str(path)}, "data": {"system": SYSTEM}}
    run, parsed = finished_run(folder / "tiny", path, spec=spec, strength=0.5)
    publish.publish(run, spec=parsed, model=FetchedModel(path=path, source=str(path), revision="folder"))
    return folder


@pytest.fixture(scope="session")
def settings_of_models() -> Environment:
    """Settings whose cache holds SmolLM2 already."""
    smollm2()
    return own_cache()
