"""Sentences that the program says, in golden files: one file a test module, one section a test.

A test calls `said(text)` with what was printed. `make golden` runs these tests with RENEW set, which writes the files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FOLDER = TESTS / "golden/said"
RENEW = "LORAJOB_RENEW_GOLDEN"
_HEAD = "## "


@dataclass
class Said:
    """What one test is to find printed."""

    path: Path
    """The golden file of the test's module."""
    test: str
    texts: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        """Takes one text of the test, in the order in which the golden file has them."""
        self.texts.append(text.rstrip("\n"))

    def check(self) -> None:
        """Compares all that was said with the golden file, or writes it there."""
        sections = read(self.path)
        if os.environ.get(RENEW):
            assert self.texts, "the test said nothing"
            write(self.path, sections | {self.test: "\n".join(self.texts)})
        else:
            assert "\n".join(self.texts) == sections.get(self.test), "run `make golden` and read the difference"


def read(path: Path) -> dict[str, str]:
    """Test -> the text that it is to find."""
    if not path.exists():
        return {}
    sections = path.read_text("utf-8").split(f"\n{_HEAD}")
    return {
        title.removeprefix(_HEAD): text.rstrip("\n") for title, _, text in (each.partition("\n") for each in sections)
    }


def write(path: Path, sections: dict[str, str]) -> None:
    """Writes a golden file, its sections by name."""
    path.write_text("\n".join(f"{_HEAD}{title}\n{text}\n" for title, text in sorted(sections.items())), "utf-8")


def renew() -> None:
    """Writes every golden file anew, by the tests that say something."""
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    modules = [str(path) for path in TESTS.rglob("test_*.py") if "said: Said" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not cluster", *modules]
    subprocess.run(command, cwd=TESTS.parent, env=os.environ | {RENEW: "1"}, check=True)
