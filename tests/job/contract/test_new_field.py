"""One entry in `contract/spec/fields.py` is all of a new field: flag, help, file, docs, chart, checks, resuming."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENTRY = (
    '    pause_steps: int = option(7, "Steps between two pauses.", at_least=2, at_most=50, resume="may change")\n'
    '    pause_form: str | None = option(None, "What a pause is like.", absent="a short one", only_in_cluster=True)\n'
    '    pause_words: dict[str, str] = option({}, "What is said in a pause.", absent="nothing")\n'
)
BELOW = "    save_steps: int = option("

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages with three more fields in TrainSpec, and nothing else changed."""
    copied = tmp_path_factory.mktemp("packages")
    for package in ("cli/lorajob", "job/lorajob_runtime"):
        shutil.copytree(ROOT / package, copied / package, ignore=shutil.ignore_patterns("__pycache__"))
    fields = copied / "job/lorajob_runtime/contract/spec/fields.py"
    text = fields.read_text("utf-8")
    assert text.count(BELOW) == 1
    fields.write_text(text.replace(BELOW, ENTRY + BELOW), "utf-8")
    return copied


@pytest.fixture
def python(packages: Path, tmp_path: Path) -> Python:
    """Calls Python with these packages, in an empty folder."""
    places = (packages / "cli", packages / "job", ROOT / "tests")
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("LORAJOB_", "KUBE", "XDG_CONFIG"))
    }
    variables |= {"PYTHONPATH": os.pathsep.join(map(str, places)), "COLUMNS": "100", "HOME": str(tmp_path)}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path, env=variables
        )

    return call


@pytest.fixture
def lorajob(python: Python) -> Python:
    return lambda *arguments: python("-m", "lorajob", *arguments)


def test_it_is_a_flag_with_its_help_where_it_means_something(lorajob: Python) -> None:
    run, submit = lorajob("run", "--help").stdout, lorajob("submit", "--help").stdout

    for shown in (run, submit):
        assert "--pause-steps INTEGER" in shown
        assert "Steps between two pauses. [7]" in shown
    assert "What a pause is like. [a short one]" in submit
    assert "--pause-form" not in run


def test_it_stands_in_the_file_that_init_writes(lorajob: Python, tmp_path: Path) -> None:
    lorajob("init")

    written = (tmp_path / "lorajob.yaml").read_text("utf-8")
    assert "  # Steps between two pauses.\n  # pauseSteps: 7\n" in written
    assert "  # What a pause is like. Without it: a short one. Only on a cluster.\n  # pauseForm: null\n" in written


def test_it_has_a_row_in_the_docs_and_a_place_in_the_chart_s_schema(python: Python) -> None:
    page = python("-c", "from golden import renew; print(renew.spec_page())").stdout
    made = python(
        "-c",
        "import json; from golden import chart_documents as chart;"
        "made = json.loads(chart.documents()[chart.SCHEMA]);"
        "print(json.dumps(made['$defs']['runSpec']['properties']['train']['properties']))",
    )

    assert "| `train.pauseSteps` | `--pause-steps` | a whole number | 7 | Steps between two pauses. |\n" in page
    assert "| `train.pauseForm` | `--pause-form` of `submit` | text | a short one | What a pause is like. |\n" in page
    described = {"minimum": 2, "maximum": 50, "description": "Steps between two pauses."}
    assert json.loads(made.stdout)["pauseSteps"] == {"type": "integer", **described}


def test_what_is_given_for_it_comes_back(lorajob: Python, tmp_path: Path) -> None:
    first = lorajob("run", "--dry-run", "--name", "n", "--pause-steps", "9", "--set", "train.pauseForm=long")
    (tmp_path / "again.yaml").write_text(first.stdout, "utf-8")

    assert "  pauseSteps: 9\n  pauseForm: long\n" in first.stdout
    assert lorajob("run", "--dry-run", "-f", "again.yaml").stdout == first.stdout


def test_a_mapping_is_one_value_that_a_later_layer_replaces_whole(lorajob: Python, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("train: {pauseWords: {first: a}}\n", "utf-8")

    shown = lorajob("run", "--dry-run", "--set", "train.pauseWords={second: b}").stdout

    assert "  pauseWords:\n    second: b\n" in shown


def test_a_wrong_value_is_refused_with_the_place_that_it_stands_at(lorajob: Python, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("train:\n  pauseSteps: 51\n", "utf-8")

    flag, file = lorajob("run", "--dry-run", "--pause-steps", "1"), lorajob("run", "--dry-run", "-f", "spec.yaml")

    assert (flag.returncode, file.returncode) == (2, 2)
    assert "--pause-steps is 1: it must be from 2 to 50" in flag.stderr
    assert "spec.yaml:2: train.pauseSteps is 51: it must be from 2 to 50" in file.stderr


def test_its_errors_carry_its_path_and_resuming_goes_by_its_rule(python: Python) -> None:
    told = python(
        "-c",
        "import json\n"
        "from lorajob_runtime.contract import errors, spec\n"
        "def path_of(value):\n"
        "    try:\n"
        "        spec.parse({'train': {'pauseSteps': value}})\n"
        "    except errors.ConfigError as error:\n"
        "        return error.path\n"
        "changed = spec.parse({'train': {'pauseSteps': 9, 'pauseForm': 'long'}})\n"
        "changes = [change.field for change in spec.changes(spec.RunSpec(), changed)]\n"
        "again = spec.loads(spec.dumps(changed))\n"
        "print(json.dumps([path_of(1), path_of('often'), path_of(2), changes, again == changed]))",
    )

    assert json.loads(told.stdout) == ["train.pauseSteps", "train.pauseSteps", None, ["train.pauseForm"], True]
