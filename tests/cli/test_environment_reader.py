"""Environment variables are read in one module of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import lorajob

PACKAGE = Path(lorajob.__file__).parent


def test_one_module_of_the_command_line_reads_environment_variables() -> None:
    readers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b|\bimport (environ|getenv)\b", path.read_text("utf-8"))
    ]

    assert readers == ["environment.py"]
