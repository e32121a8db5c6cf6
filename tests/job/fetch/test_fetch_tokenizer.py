"""A tokenizer without its model: what a look at a dataset needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.hub_server import HubServer
from lorajob_runtime import fetch
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.system.environment import Environment

MODEL = "acme/tiny-chat"


@pytest.mark.parametrize("kind", ["modelscope", "hf"])
def test_a_tokenizer_comes_without_the_weights_and_never_passes_for_a_model(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    model = ModelSpec(name=f"{kind}:{MODEL}")

    tokenizer = fetch.fetch_tokenizer(model, environment=environment, notify=lines.append)
    whole = fetch.fetch(model, environment=environment, notify=lines.append)

    assert (tokenizer.path / "tokenizer.json").exists()
    assert not list(tokenizer.path.glob("*.safetensors"))
    assert (whole.path / "model.safetensors").exists()
    hub.stop()
    assert fetch.fetch_tokenizer(model, environment=environment, notify=lines.append) == tokenizer


def test_a_model_that_is_here_serves_for_its_tokenizer(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    model = ModelSpec(name=f"hf:{MODEL}")
    whole = fetch.fetch(model, environment=environment, notify=lines.append)
    hub.stop()

    assert fetch.fetch_tokenizer(model, environment=environment, notify=lines.append) == whole


def test_a_folder_without_weights_has_a_tokenizer(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")

    found = fetch.fetch_tokenizer(ModelSpec(name=str(folder)), environment=environment, notify=print)

    assert found.path == folder
