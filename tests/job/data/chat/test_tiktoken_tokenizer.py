"""A tokenizer that is a tiktoken file is read from that file, and none of its repository's code is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import family_tokenizers
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.data.chat.tokenizer import load_tokenizer

CONFIG = {
    "tokenizer_class": "HYTokenizer",
    "auto_map": {"AutoTokenizer": ["tokenization_hy.HYTokenizer", None]},
    "eos_token": "<|eos|>",
    "pad_token": "<|pad|>",
}


def write(folder: Path, ranked: list[bytes], config: dict[str, Any] = CONFIG) -> Path:
    """A folder as the hub has it: byte strings by rank, the settings, and code that must not run."""
    folder.mkdir(exist_ok=True)
    family_tokenizers.write_tiktoken(folder, ranked)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenization_hy.py").write_text("raise RuntimeError('this code has run')")
    return folder


@pytest.mark.parametrize("trusted", [False, True])
def test_texts_are_merged_by_rank_and_control_tokens_come_behind(tmp_path: Path, trusted: bool) -> None:
    words = [b"th", b"he", b"the", b" the", "好".encode()[:2], "好".encode()]
    folder = write(tmp_path / "model", [*(bytes([byte]) for byte in range(256)), *words])

    tokenizer = load_tokenizer(folder, trust_remote_code=trusted)

    assert tokenizer("the the好12<|eos|>")["input_ids"] == [258, 259, 261, ord("1"), ord("2"), 262 + 3]
    assert tokenizer.decode([258, 259, 261]) == "the the好"
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|eos|>", "<|pad|>", 262 + 210)


def test_the_real_one_gives_the_ids_of_its_conversion(tmp_path: Path) -> None:
    if not family_tokenizers.SHARED.is_dir():
        pytest.skip(family_tokenizers.NOT_THERE)
    real = family_tokenizers.write("hunyuan", tmp_path / "real")
    folder = family_tokenizers.as_code(family_tokenizers.write("hunyuan", tmp_path / "model"))

    ours, expected = load_tokenizer(folder), family_tokenizers.load(real)

    ours_model, expected_model = (json.loads(each.backend_tokenizer.to_str())["model"] for each in (ours, expected))
    assert ours_model["vocab"] == expected_model["vocab"]
    assert ours_model["merges"] == expected_model["merges"]
    assert ours.added_tokens_decoder.keys() == expected.added_tokens_decoder.keys()
    assert ours.all_special_tokens == expected.all_special_tokens
    assert ours.chat_template == expected.chat_template
    text = "<|startoftext|>你好，甄嬛 1234 🙂\n\n def f(x):<|extra_0|>"
    assert ours(text)["input_ids"] == expected(text)["input_ids"]


def test_a_chat_template_in_a_file_of_its_own_comes_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", [bytes([byte]) for byte in range(256)], CONFIG | {"chat_template": "old"})
    (folder / "chat_template.jinja").write_text("new")

    assert load_tokenizer(folder).chat_template == "new"


@pytest.mark.parametrize("content", ["YQ== 0\nbroken", "YQ== 0\nYg== 2", "YQ== zero"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path / "model", [])
    (folder / "hy.tiktoken").write_text(content)

    with pytest.raises(ModelError, match=r"hy\.tiktoken is not a tiktoken file"):
        load_tokenizer(folder)


def test_another_tokenizer_that_is_code_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", [], CONFIG | {"tokenizer_class": "AcmeTokenizer"})

    with pytest.raises(ModelError, match=r"it needs tokenization_hy\.py of its repository, which may not run$"):
        load_tokenizer(folder)


def test_a_tokenizer_whose_code_is_in_another_repository_is_refused(tmp_path: Path) -> None:
    elsewhere = {"tokenizer_class": "AcmeTokenizer", "auto_map": {"AutoTokenizer": ["acme/moving--own.Own", None]}}
    folder = write(tmp_path / "model", [], CONFIG | elsewhere)

    with pytest.raises(ModelError, match=r"the code for AutoTokenizer is acme/moving--own\.Own, in another repository"):
        load_tokenizer(folder, trust_remote_code=True)
