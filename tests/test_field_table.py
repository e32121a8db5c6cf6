"""The table in docs/testing.md of what was found in the field names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## What the field found"
_TEST = re.compile(r"(tests/[\w./-]+\.py)?::(\w+)(\[[^\]|]*\])?")


def faults_of(page: str, root: Path) -> list[str]:
    """What is wrong with the table below the heading, a sentence each; nothing where the page has no such heading.

    A row is `| number | fault | tests/file.py::test_name, ::another of that file, … |`.
    """
    if HEADING not in page:
        return []
    section = page.partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    if not lines:
        return ["the table has no rows"]
    found = []
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if len(cells) != 3 or not all(cells):
            found.append(f"a row must have a number, the fault and its tests: {line}")
            continue
        found += [f"{cells[0]}: {fault}" for fault in _faults_of_tests(cells[2], root)]
    return found


def _faults_of_tests(text: str, root: Path) -> list[str]:
    # a comma within the brackets of a parameter separates nothing
    named = [each.strip().strip("`") for each in re.split(r"[,;]\s+(?=`?(?:tests/|::))", text)]
    found, file = [], ""
    for each in named:
        match = _TEST.fullmatch(each)
        if match is None or not (match[1] or file):
            found.append(f"{each!r} is not written like tests/file.py::test_name")
            continue
        file = match[1] or file
        if not (root / file).is_file():
            found.append(f"there is no {file}")
        elif match[2] not in _functions(root / file):
            found.append(f"{file} has no {match[2]}")
    return found


def _functions(path: Path) -> set[str]:
    """Names of the tests in a file, which is read and not imported."""
    found = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name.startswith("test_")}


def test_every_test_that_the_table_names_is_there() -> None:
    assert faults_of((ROOT / "docs/testing.md").read_text("utf-8"), ROOT) == []


def test_every_test_that_the_page_names_elsewhere_is_there() -> None:
    named = re.findall(r"(tests/[\w./-]+\.py)::(\w+)", (ROOT / "docs/testing.md").read_text("utf-8"))

    assert [(file, test) for file, test in named if test not in _functions(ROOT / file)] == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("| F1 | a CSV | tests/a.py::test_csv |", None),
        ("| F1 | a CSV | `tests/a.py::test_csv`, tests/a.py::test_table[;-a, b] |", None),
        ("| F1 | a \\| in a CSV | tests/a.py::test_csv |", None),
        ("| F1 | a CSV | tests/b.py::test_csv |", "F1: there is no tests/b.py"),
        ("| F1 | a CSV | tests/a.py::test_tsv |", "F1: tests/a.py has no test_tsv"),
        ("| F1 | a CSV | tests/a.py::helper |", "F1: tests/a.py has no helper"),
        ("| F1 | a CSV | by hand |", "F1: 'by hand' is not written like tests/file.py::test_name"),
        ("| F1 | a CSV | |", "a row must have a number, the fault and its tests: | F1 | a CSV | |"),
        ("| F1, S1 | a CSV | tests/a.py::test_csv, ::test_table |\n| F1 | it | tests/a.py::test_csv |", None),
        ("| F1 | a CSV | tests/a.py::test_csv; tests/a.py::test_table |", None),
        ("| F1 | a CSV | tests/a.py::test_csv, ::test_tsv |", "F1: tests/a.py has no test_tsv"),
        ("| F1 | a CSV | ::test_csv |", "F1: '::test_csv' is not written like tests/file.py::test_name"),
        ("", "the table has no rows"),
    ],
)
def test_a_row_that_names_no_test_is_found(row: str, fault: str | None, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/a.py").write_text("def helper(): ...\ndef test_csv(): ...\ndef test_table(): ...\n")
    page = f"# Tests\n\n{HEADING}\n\n| | fault | tests |\n|---|---|---|\n{row}\n\n## CI\n\n| a | b |\n"

    assert faults_of(page, tmp_path) == ([] if fault is None else [fault])
