"""Code of a model's repository: run where nothing else will do and it is trusted, and never touched where it lies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from families import tiny
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.train.base_model import loading

OWN = """
import logging
from transformers import Qwen3Config, Qwen3ForCausalLM


class OwnConfig(Qwen3Config):
    model_type = "own"


class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where transformers copies a repository's code before it runs it."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")


def with_code(folder: Path, code: str, **config: str | list[str]) -> Path:
    """A Qwen3 whose repository brings classes of its own."""
    tiny("qwen3", folder)
    (folder / "own.py").write_text(code)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    stored = json.loads((folder / "config.json").read_text()) | {"auto_map": classes} | config
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def load(folder: Path, *, trusted: bool) -> torch.nn.Module:
    model = ModelSpec(name="acme/own", revision="0123abc", trust_remote_code=trusted)
    return loading.load(folder, model, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("trusted", [False, True])
def test_hunyuans_code_which_lacks_an_import_is_neither_run_nor_mended(tmp_path: Path, trusted: bool) -> None:
    folder = tiny("hunyuan", tmp_path / "model")
    (folder / "hunyuan.py").write_text("logger.warning('nobody has made this name')")
    classes = {"AutoConfig": "hunyuan.HunYuanConfig", "AutoModelForCausalLM": "hunyuan.HunYuanMoEV1ForCausalLM"}
    # as published: names of its own for the type and for the size of heads
    published = {"model_type": "hunyuan", "auto_map": classes, "attention_head_dim": 8}
    stored = json.loads((folder / "config.json").read_text()) | published
    del stored["head_dim"]
    (folder / "config.json").write_text(json.dumps(stored))
    before = digest(folder)

    model = load(folder, trusted=trusted)

    assert type(model).__module__ == "transformers.models.hunyuan_v1_moe.modeling_hunyuan_v1_moe"
    assert digest(folder) == before


@pytest.mark.parametrize("trusted", [False, True])
def test_transformers_own_class_is_taken_where_there_is_one(tmp_path: Path, trusted: bool) -> None:
    folder = with_code(tmp_path / "model", "raise RuntimeError('this code has run')")

    assert type(load(folder, trusted=trusted)).__module__ == "transformers.models.qwen3.modeling_qwen3"


def test_code_that_is_not_trusted_does_not_run_and_the_error_says_what_would_run_it(tmp_path: Path) -> None:
    folder = with_code(
        tmp_path / "model", "raise RuntimeError('this code has run')", model_type="own", architectures=["Own"]
    )

    with pytest.raises(ModelError) as caught:
        load(folder, trusted=False)

    message = "acme/own: transformers has no class for 'Own', and its repository's code may not run"
    assert caught.value.message == message
    assert "model.trustRemoteCode" in caught.value.hint


def test_a_class_of_the_repositorys_own_is_no_class_of_the_type_that_it_calls_itself(tmp_path: Path) -> None:
    own = OWN.replace('    model_type = "own"', "    pass")
    folder = with_code(tmp_path / "model", own, model_type="qwen3", architectures=["OwnForCausalLM"])

    with pytest.raises(ModelError, match=r"no class for 'OwnForCausalLM', and its repository's code may not run"):
        load(folder, trusted=False)
    assert type(load(folder, trusted=True)).__name__ == "OwnForCausalLM"


def test_trusted_code_runs_from_a_copy_and_the_folder_stays_as_it_was(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "model", OWN, model_type="own", architectures=["OwnForCausalLM"])
    before = digest(folder)

    model = load(folder, trusted=True)

    assert type(model).__name__ == "OwnForCausalLM"
    assert type(model).__module__.startswith("transformers_modules.")
    assert digest(folder) == before


def test_code_of_yet_another_repository_is_refused(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "model", OWN, model_type="own", architectures=["Own"])
    stored = json.loads((folder / "config.json").read_text())
    stored["auto_map"]["AutoConfig"] = "acme/moving--own.OwnConfig"
    (folder / "config.json").write_text(json.dumps(stored))

    with pytest.raises(ModelError, match=r"for AutoConfig is acme/moving--own\.OwnConfig, in another repository"):
        load(folder, trusted=True)
