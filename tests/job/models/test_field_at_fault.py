"""What a model cannot do as asked is refused with the field that asks for it, not only with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import field_at, parse
from lorajob_runtime.models import architecture, preflight


@pytest.mark.parametrize(
    ("model", "asked", "path"),
    [
        ("qwen3-8b", {"lora": {"targets": ["no_proj"]}}, "lora.targets"),
        ("minimax-m2", {"lora": {"targets": ["gate_proj"]}}, "lora.targets"),
        ("qwen3-8b", {"lora": {"experts": True}}, "lora.experts"),
        ("qwen3-8b", {"lora": {"router": True}}, "lora.router"),
        ("minimax-m2", {"model": {"quantize": "nf4"}}, "model.quantize"),
        ("qwen3-8b", {"model": {"quantize": "nf4"}, "train": {"sharding": "fsdp"}}, "model.quantize"),
        ("qwen2.5-coder-7b", {"data": {"thinking": True}}, "data.thinking"),
    ],
)
def test_a_refusal_carries_the_path_of_the_field(model: str, asked: dict[str, Any], path: str) -> None:
    spec = parse(asked | {"model": {"name": model} | asked.get("model", {})})

    with pytest.raises(ConfigError) as caught:
        preflight.check(spec, architecture.read(catalog.get(model).config))

    assert caught.value.path == path == field_at(path).path
    assert path in caught.value.message
