"""Fails when a test was skipped for a reason that docs/testing.md does not allow: `skips.py TESTING.md JUNIT.xml…`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

HEADING = "## May be skipped in CI"


def allowed(text: str) -> tuple[str, ...]:
    """The beginnings of reasons in the list below the heading."""
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    return tuple(re.findall(r"(?m)^- `([^`]+)`", section))


def skipped(report: Path) -> list[tuple[str, str]]:
    """(test, reason) of every skipped test in a JUnit report. Tests that are expected to fail are not skipped."""
    found = []
    # the report was written by our own pytest a moment ago
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        for skip in case.iter("skipped"):
            if skip.get("type") != "pytest.xfail":
                found.append((f"{case.get('classname')}.{case.get('name')}", skip.get("message") or ""))
    return found


def main(page: Path, reports: Sequence[Path]) -> int:
    """Prints what must not be skipped. Returns the exit code."""
    reasons = allowed(page.read_text("utf-8"))
    every = [found for report in reports for found in skipped(report)]
    wrong = [(test, reason) for test, reason in every if not reason.startswith(reasons)]
    for test, reason in wrong:
        print(f"skipped: {test}: {reason}")
    if wrong:
        print(f"{len(wrong)} tests were skipped that must run in CI; {page} lists the reasons that may stand")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]]))
