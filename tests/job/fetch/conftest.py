"""A hub with one small model, and this process pointed at it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub_server import HubServer
from lorajob_runtime.system import environment as environment_module
from lorajob_runtime.system.environment import Environment

MODEL = "acme/tiny-chat"
WEIGHTS = "model.safetensors"
NEEDED = {"LICENSE", "config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", WEIGHTS}
WEIGHT_BYTES = 3_000_000


def make_model(folder: Path) -> None:
    """The files that a repository has: what training needs, and what it does not."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(random.Random(1).randbytes(WEIGHT_BYTES))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "LICENSE").write_text("free")
    (folder / "README.md").write_text("# not needed")
    (folder / "modeling_tiny.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"another copy")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Both hubs on this machine, with acme/tiny-chat."""
    make_model(tmp_path / "hub" / MODEL)
    server = HubServer(tmp_path / "hub")
    for name, value in server.variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in ("MODELSCOPE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()


@pytest.fixture
def environment(hub: HubServer) -> Environment:
    """The settings that lead to the hub."""
    return environment_module.read()


@pytest.fixture
def lines() -> list[str]:
    """What `notify` was told."""
    return []
