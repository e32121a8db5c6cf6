"""How tests of the command line call it: in this process, through the entry point that a person's call takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from calling import Call, Outcome
from lorajob.__main__ import main


@pytest.fixture
def lorajob(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`lorajob("run", "--dry-run")` in an empty folder, which is the test's `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return call
