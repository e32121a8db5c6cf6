"""`make test`: two pytests beside each other, one report and one exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from side_by_side import exit_code

PROGRAM = Path(__file__).with_name("side_by_side.py")
PASSES = """
import pytest
@pytest.mark.cluster
def test_in_the_cluster(): pass
def test_here(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Runs the tests of a small project: `project(its tests, *arguments)`."""

    def run(tests: str, *arguments: str) -> subprocess.Popen[str]:
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cluster: needs one\n")
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests/test_it.py").write_text(tests)
        command = [sys.executable, str(PROGRAM), "-p", "no:timeout", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def test_each_half_runs_its_own_tests_and_writes_its_own_report(project: Any, tmp_path: Path) -> None:
    process = project(PASSES, f"--junitxml={tmp_path}/out.xml")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 0, said
    assert "cluster: tests/test_it.py ." in said
    assert "  local: tests/test_it.py ." in said
    for half, ran in (("cluster", "test_in_the_cluster"), ("local", "test_here")):
        report = (tmp_path / f"out-{half}.xml").read_text()
        assert 'tests="1"' in report
        assert ran in report


def test_a_failure_in_one_half_is_shown_whole_and_fails_all(project: Any) -> None:
    process = project(f"{PASSES}\ndef test_wrong(): assert 1 == 2")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "1 passed" in said
    assert "assert 1 == 2" in said.partition("= FAILURES =")[2]


def test_chosen_tests_run_in_one_pytest(project: Any) -> None:
    process = project(PASSES, "tests/test_it.py")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 0, said
    assert "2 passed" in said


def test_ctrl_c_takes_down_what_the_tests_of_both_halves_brought_up(
    project: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    process = project("""
import pathlib, time, pytest
@pytest.fixture
def up(request):
    place = pathlib.Path(request.node.name)
    place.touch()
    yield
    place.unlink()
@pytest.mark.cluster
def test_long(up): time.sleep(60)
def test_longer(up): time.sleep(60)
""")
    wait_until(lambda: all((tmp_path / name).exists() for name in ("test_long", "test_longer")), seconds=60)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 2, said
    assert not (tmp_path / "test_long").exists()
    assert not (tmp_path / "test_longer").exists()


@pytest.mark.parametrize(("codes", "together"), [((0, 5), 0), ((5, 5), 5), ((0, 1), 1), ((2, 0), 2), ((-9, 0), 9)])
def test_a_half_without_tests_does_not_count_beside_one_that_has_some(codes: tuple[int, ...], together: int) -> None:
    assert exit_code(codes) == together
