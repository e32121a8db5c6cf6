"""The small commands: init, models, version, completion."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from calling import Call
from lorajob.spec.resolve import resolve
from lorajob.spec.spec_file import loads
from lorajob_runtime import __version__
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import every_field
from lorajob_runtime.contract.text import decimal_size, parameter_count


@pytest.mark.parametrize("model", catalog.entries())
def test_init_writes_a_file_that_means_the_recipe_of_the_model(
    lorajob: Call, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = lorajob("init", "--model", model, "--data", "my rows.json")

    assert outcome.code == 0
    written = resolve().spec
    (tmp_path / "lorajob.yaml").unlink()
    assert written == resolve(flags={"model.name": model, "data.source": "my rows.json"}).spec


@pytest.mark.parametrize(
    "data",
    [
        *("1e5", "4e12", "0x1f", "0o17", "1_000", "12", "1.5", ".inf", ".nan", "-1", "2026-11-21", "12:30", "~"),
        *("true", "True", "TRUE", "yes", "No", "on", "null", "Null", "NULL", "n", "=", "<<", "!x", "&a", "*a", "@x"),
        *("`x", "- a", "a: b", "a #b", "'a'", '"a"', "[a]", "{a}", "a\\b", "甄嬛.json", "甄嬛", "²3", "rows", "a\x85b"),
        "\U0001f600",
    ],
)
def test_init_writes_every_word_so_that_it_is_read_back_as_it_was(lorajob: Call, data: str) -> None:
    outcome = lorajob("init", "--data", data)

    assert outcome.code == 0
    assert resolve().spec.data.source == data
    written = yaml.safe_load(Path("lorajob.yaml").read_text("utf-8"))
    assert written["data"]["source"] == data, "older programs read YAML 1.1"


def test_what_init_comments_out_are_the_defaults(lorajob: Call, tmp_path: Path) -> None:
    lorajob("init", "--model", "hf:some/model")
    text = (tmp_path / "lorajob.yaml").read_text()
    names = "|".join(field.path.rpartition(".")[2] for field in every_field())
    (tmp_path / "all.yaml").write_text(re.sub(rf"(?m)^( *)# (?=(?:{names}): )", r"\1", text))

    assert all(resolve([tmp_path / "all.yaml"]).gives(field.path) for field in every_field())
    assert resolve([tmp_path / "all.yaml"]).spec == resolve(flags={"model.name": "hf:some/model"}).spec


def test_what_init_writes_can_be_submitted_and_rendered_without_any_cluster(
    lorajob: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "platform.yaml").write_text("{image: example/lorajob:0.1.0, storage: {uri: s3://models/lora}}")
    render = ("submit", "--dry-run=client", "--platform", "platform.yaml", "-o", "json")

    written = lorajob("init")
    plain = lorajob(*render, "--name", "first")
    named = lorajob(*render, "--name", "first", "-n", "team")

    assert (written.code, plain.code, named.code) == (0, 0, 0), plain.err
    namespaces = [json.loads(each.out)["items"][0]["metadata"]["namespace"] for each in (plain, named)]
    assert namespaces == ["default", "team"]
    assert "cluster   none: nothing is sent" in plain.err
    assert lorajob(*render, "--context", "other").code == 2


def test_init_keeps_a_file_that_is_there_unless_told_otherwise(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("name: mine\n")

    refused = lorajob("init")

    assert refused.code == 2
    assert refused.err.splitlines() == ["lorajob: error: lorajob.yaml is already here", "hint: --force replaces it"]
    assert (tmp_path / "lorajob.yaml").read_text() == "name: mine\n"
    assert lorajob("init", "--force").code == 0


def test_init_of_an_unknown_model_names_the_nearest(lorajob: Call, tmp_path: Path) -> None:
    outcome = lorajob("init", "--model", "qwen3-8")

    assert outcome.code == 12
    assert "did you mean qwen3-8b?" in outcome.err
    assert not (tmp_path / "lorajob.yaml").exists()


def test_models_as_a_table_has_a_line_for_each(lorajob: Call) -> None:
    lines = lorajob("models").out.splitlines()

    assert lines[0].split() == ["NAME", "PARAMETERS", "ACTIVE", "KIND", "DOWNLOAD", "LICENCE", "SOURCE"]
    assert [line.split()[0] for line in lines[1:]] == list(catalog.entries())


def test_models_are_all_trained_whatever_their_kind(lorajob: Call) -> None:
    lines = {line.split()[0]: line for line in lorajob("models").out.splitlines()[1:]}
    items = json.loads(lorajob("models", "-o", "json").out)["items"]

    assert " dense " in lines["qwen3-8b"]
    assert " moe " in lines["glm-4.5-air"]
    assert all(item["trains"] for item in items)


def test_models_as_json_and_yaml_are_the_same_document(lorajob: Call) -> None:
    document = json.loads(lorajob("models", "-o", "json").out)

    assert document["kind"] == "ModelList"
    assert [item["name"] for item in document["items"]] == list(catalog.entries())
    assert loads(lorajob("models", "-o", "yaml").out, "output").values == document


def test_models_by_name_are_words_for_a_script(lorajob: Call) -> None:
    assert lorajob("models", "-o", "name").out.split() == list(catalog.entries())


@pytest.mark.parametrize(
    ("number", "shown"), [(134_515_008, "135M"), (8_190_735_360, "8.2B"), (106_900_000_000, "107B"), (12, "12")]
)
def test_counts_are_shown_for_people(number: int, shown: str) -> None:
    assert parameter_count(number) == shown


@pytest.mark.parametrize(("number", "shown"), [(16_381_470_720, "16.4 GB"), (269_060_552, "269 MB")])
def test_sizes_are_shown_for_people(number: int, shown: str) -> None:
    assert decimal_size(number) == shown


def test_version_names_lorajob_and_what_it_trains_with(lorajob: Call) -> None:
    document = json.loads(lorajob("version", "-o", "json").out)

    assert document["versions"]["lorajob"] == __version__
    assert "python" in document["versions"]
    assert lorajob("version").out.split()[:2] == ["lorajob", __version__]
    assert lorajob("--version").out == f"lorajob {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(lorajob: Call, shell: str) -> None:
    outcome = lorajob("completion", shell)

    assert outcome.code == 0
    assert f"_LORAJOB_COMPLETE={shell}_complete" in outcome.out


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("lorajob run --model", "qw", {"qwen3-8b", "qwen2.5-coder-7b"}),
        ("lorajob run --scheduler", "", {"linear", "cosine", "constant"}),
        ("lorajob", "mod", {"models"}),
    ],
)
def test_completion_offers_commands_models_and_choices(words: str, incomplete: str, offered: set[str]) -> None:
    from click.shell_completion import ShellComplete

    from lorajob.main import cli

    found = ShellComplete(cli, {}, "lorajob", "_LORAJOB_COMPLETE").get_completions(words.split()[1:], incomplete)

    assert {item.value for item in found} == offered
