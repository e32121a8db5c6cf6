"""Help: the golden files, the examples that it shows, and which libraries it never loads."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import click
import pytest

from lorajob.main import cli
from lorajob.options.flags import FieldOption, flag_fields
from lorajob_runtime.contract import schema, spec
from lorajob_runtime.contract.spec import RunSpec

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "kubernetes", "boto3", "botocore", "pydantic", "rich", "datasets", "peft", "numpy")


def _renew() -> ModuleType:
    found = importlib.util.spec_from_file_location("golden_renew", ROOT / "tests/golden/renew.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


RENEW = _renew()


@pytest.mark.parametrize("path", RENEW.documents(), ids=lambda path: path.name)
def test_help_and_generated_docs_are_as_their_golden_files_say(path: Path) -> None:
    assert path.read_text("utf-8") == RENEW.documents()[path], "run `make golden` and read the difference"


def test_no_golden_file_is_left_of_a_command_that_is_gone() -> None:
    assert set((ROOT / "tests/golden/help").glob("*.txt")) <= set(RENEW.documents())


def test_the_usage_page_lists_every_command() -> None:
    table = (ROOT / "docs/usage.md").read_text("utf-8").partition("\n## ")[0]

    for name, command in _commands():
        assert isinstance(command, click.Group) or f"`lorajob {name}" in table, name


def _commands() -> list[tuple[str, click.Command]]:
    found = []
    for _, words in RENEW.command_lines():
        command: click.Command = cli
        for word in words:
            assert isinstance(command, click.Group)
            inner = command.get_command(click.Context(command), word)
            assert inner is not None
            command = inner
        found.append((" ".join(words) or "lorajob", command))
    return found


@pytest.mark.parametrize(("name", "command"), [pair for pair in _commands() if not isinstance(pair[1], click.Group)])
def test_every_help_has_an_example_that_parses(name: str, command: click.Command) -> None:
    shell = re.compile(r"source <\(|\)$| > \S+$")
    examples = [shell.sub("", line) for line in getattr(command, "examples", ())]

    assert examples, f"lorajob {name} --help shows no example"
    for example in examples:
        words = shlex.split(example)
        assert words[: 1 + len(name.split())] == ["lorajob", *name.split()]
        command.make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize("name", ["run", "submit", "plan"])
def test_every_field_that_matters_has_one_flag_and_no_two_share_a_name(name: Literal["run", "submit", "plan"]) -> None:
    command = dict(_commands())[name]
    paths = [parameter.path for parameter in command.params if isinstance(parameter, FieldOption)]
    names = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]

    assert sorted(paths) == sorted(field.path for field in flag_fields(command=name))
    assert sorted(names) == sorted(set(names))


def test_every_field_has_a_sentence_and_says_what_its_absence_means() -> None:
    fields = spec.every_field()
    leaves = schema.encode(RunSpec())

    assert {field.path for field in fields} == set(_paths(leaves)) - {"apiVersion"}
    for field in fields:
        assert field.option.help.endswith("."), field.path
        assert (field.option.absent is not None) is (field.default in (None, {})), field.path
        assert field.option.absent_in_cluster is None or field.option.absent is not None, field.path


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _compiled(folder: Path) -> dict[str, str]:
    """The environment of a Python that keeps compiled modules, as an installed one has them."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return variables | {"PYTHONPYCACHEPREFIX": str(folder)}


def test_help_loads_no_library_that_is_slow_to_import(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lorajob", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=_compiled(tmp_path),
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines()}

    assert "click" in loaded
    assert not loaded & {*HEAVY, "ruamel", "yaml"}
