"""Files that the docs name exist, and those of the table in docs/architecture.md have what is said to be in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
HEADING = "## Where is it?"
FEWEST_ROWS = 30


def rows_of(page: str) -> list[list[str]]:
    """Cells of the rows `| behaviour | file | names in it |` below the heading."""
    section = page.partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def faults_of(row: list[str], root: Path) -> list[str]:
    """What is wrong with one row, a sentence each."""
    if len(row) != 3 or not all(row):
        return [f"a row must have a behaviour, a file and names: {row}"]
    behaviour, file, names = row
    path = root / file.strip("`")
    if not path.is_file():
        return [f"{behaviour}: there is no {file}"]
    defined = names_in(path)
    return [f"{behaviour}: {file} has no {name}" for name in re.findall(r"`([^`]+)`", names) if name not in defined]


def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and constants of a module; of another file, its words."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"[\w.-]+", text))
    found: set[str] = set()
    for node in ast.parse(text).body:
        found |= _defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in _defined(inner)}
    return found


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_file_of_the_table_defines_what_is_named_beside_it() -> None:
    rows = rows_of(PAGE.read_text("utf-8"))

    assert len(rows) >= FEWEST_ROWS
    assert [fault for row in rows for fault in faults_of(row, ROOT)] == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (["stores", "`a.py`", "`Store.put`, `LIMIT`, `open_store`"], None),
        (["stores", "`b.py`", "`Store`"], "stores: there is no `b.py`"),
        (["stores", "`a.py`", "`Store.get`"], "stores: `a.py` has no Store.get"),
        (["stores", "`a.py`", "`inner`"], "stores: `a.py` has no inner"),
        (["stores", "`a.py`", ""], "a row must have a behaviour, a file and names: ['stores', '`a.py`', '']"),
    ],
)
def test_a_row_that_leads_nowhere_is_found(row: list[str], fault: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "LIMIT: int = 3\nclass Store:\n    def put(self): ...\ndef open_store():\n    inner = 1\n    return inner\n"
    )

    assert faults_of(row, tmp_path) == ([] if fault is None else [fault])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_is_there(page: Path) -> None:
    """Of a path like `train/loop.py` the beginning is left out, and `hubs/NAME.py` is one to be written."""
    modules = [
        module for name in ("job", "cli", "tests", "bench", "examples") for module in (ROOT / name).rglob("*.py")
    ]
    there = [f"/{path.relative_to(ROOT)}" for path in modules]
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text("utf-8")))

    missing = [path for path in sorted(named) if not any(each.endswith(f"/{path}") for each in there)]
    assert [path for path in missing if not path.endswith("/NAME.py")] == []
