"""What is installed: the wheel, the light command line, and the pinned requirements."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))

_ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {absent} else find(name)
from lorajob.__main__ import main
sys.exit(main({arguments}))
"""


def _alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a Python that has none of what trains."""
    from lorajob.commands.version import LIBRARIES
    from lorajob.options.installed import RUNTIME

    absent = {*RUNTIME, *LIBRARIES, "numpy", "kubernetes", "pydantic"}
    program = _ALONE.format(absent=absent, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "arguments", [["models"], ["init"], ["run", "--dry-run"], ["version"], ["completion", "bash"], ["--help"]]
)
def test_the_light_commands_need_nothing_of_what_trains(tmp_path: Path, arguments: list[str]) -> None:
    done = _alone(tmp_path, *arguments)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["generate", "x"], ["data", "check", "x.json"], ["artifacts", "convert", "x", "--output", "y"]],
)
def test_what_trains_says_how_to_install_it(tmp_path: Path, arguments: list[str]) -> None:
    done = _alone(tmp_path, *arguments)

    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert "needs torch, transformers, peft" in error
    assert hint == "hint: install lorajob with its extra: pip install 'lorajob[runtime]'"


def test_the_wheel_holds_both_packages_with_their_data(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    with zipfile.ZipFile(next(tmp_path.glob("lorajob-*.whl"))) as wheel:
        names = set(wheel.namelist())

    assert {
        "lorajob/__main__.py",
        "lorajob/py.typed",
        "lorajob/commands/run.py",
        "lorajob_runtime/py.typed",
        "lorajob_runtime/contract/catalog/qwen3-8b.toml",
        "lorajob_runtime/data/examples/lighthouse.json",
        "lorajob_runtime/train/__main__.py",
    } <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "examples")) or "__pycache__" in name]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_by_hash_and_no_file_names_a_host(path: Path) -> None:
    text = path.read_text("utf-8")
    pinned = re.findall(r"(?m)^[A-Za-z0-9]\S*==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", text)
    named = re.findall(r"(?m)^[A-Za-z0-9]", text)

    assert len(pinned) == len(named) > 0
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(("name", "extras"), [("cli", ()), ("runtime", ("runtime",)), ("dev", ("runtime", "dev"))])
def test_the_pinned_requirements_hold_every_package_that_the_project_asks_for(
    name: str, extras: tuple[str, ...]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    pinned = set(re.findall(r"(?m)^([a-z0-9-]+)(?:\[.*?\])?==", text))
    names = {re.split(r"[\[<>=!~ ]", line)[0] for line in wanted}

    assert {re.sub(r"[._-]+", "-", asked).lower() for asked in names} <= pinned


def test_pins_of_users_and_developers_are_the_same() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        return set(re.findall(r"(?m)^(\S+==\S+(?: ;.*?)?) \\$", text))

    assert pins("cli") <= pins("runtime") <= pins("dev")


def test_version_output_is_json_for_a_program(tmp_path: Path) -> None:
    assert json.loads(_alone(tmp_path, "version", "-o", "json").stdout)["kind"] == "Version"
