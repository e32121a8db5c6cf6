"""`make test`: several pytests beside each other, one report and one exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import sharing
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
        (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {PROGRAM.parent}\nmarkers = cluster: needs one\n")
        (tmp_path / "tests").mkdir(exist_ok=True)
        (tmp_path / "tests/conftest.py").write_text('pytest_plugins = ["sharing"]\n')
        (tmp_path / "tests/test_it.py").write_text(tests)
        command = [sys.executable, str(PROGRAM), "-p", "no:timeout", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def test_the_tests_for_a_cluster_run_beside_the_others_and_each_part_writes_its_own_report(
    project: Any, tmp_path: Path
) -> None:
    process = project(PASSES, f"--junitxml={tmp_path}/out.xml")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 0, said
    assert _ran(tmp_path, "cluster") + _ran(tmp_path, "cluster-2") == ["test_in_the_cluster"]
    assert _ran(tmp_path, "local") + _ran(tmp_path, "local-2") == ["test_here"]
    for kind in ("cluster", "local"):
        assert re.search(rf"(?m)^ *{kind}(-2)?: tests/test_it.py \.", said), said


def test_a_file_without_a_test_for_a_cluster_is_not_imported_beside_one(project: Any, tmp_path: Path) -> None:
    (tmp_path / "tests/marked").mkdir(parents=True)
    (tmp_path / "tests/marked/conftest.py").write_text("# adds pytest.mark.cluster to every test here")
    for name in ("test_other", "marked/test_below"):
        imported = (
            f"pathlib.Path({str(tmp_path)!r}, 'imported').open('a').write(f'{Path(name).name} {{os.getpid()}}\\n')"
        )
        (tmp_path / f"tests/{name}.py").write_text(f"import os, pathlib\n{imported}\ndef test_nothing(): pass\n")

    said, _ = project(PASSES).communicate(timeout=60)

    names = [line.split()[0] for line in (tmp_path / "imported").read_text().splitlines()]
    assert (names.count("test_other"), names.count("test_below")) == (2, 4), said


def test_files_with_slow_tests_come_first_and_stay_whole(tmp_path: Path) -> None:
    marks = {"a": "", "b": "", "x": "@pytest.mark.slow", "y": "@pytest.mark.usefixtures('image')"}
    for name, mark in marks.items():
        (tmp_path / f"test_{name}.py").write_text(f"""
import pytest
@pytest.fixture
def image(): pass
def test_first(): print("ran", {name!r})
{mark}
def test_second(): print("ran", {name!r})
""")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {PROGRAM.parent}\nmarkers = slow: is slow\n")
    (tmp_path / "shared").mkdir()

    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "sharing", "-p", "no:timeout"]
    variables = os.environ | {sharing.VARIABLE: str(tmp_path / "shared")}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"ran (\w)", done.stdout) == ["x", "x", "y", "y", "a", "a", "b", "b"]


def test_two_parts_share_the_files_and_run_every_test_once(project: Any, tmp_path: Path) -> None:
    (tmp_path / "tests/deeper").mkdir(parents=True)
    names = [f"{folder}_{number}.py" for folder in ("test", "deeper/test_below") for number in range(20)]
    for name in names:
        (tmp_path / "tests" / name).write_text(f"""
import time, pytest
@pytest.fixture(scope="module")
def made(): return []
@pytest.mark.parametrize("part", range(3))
def {Path(name).stem}(part, made):
    made.append(part)
    assert made == list(range(part + 1)), "a file's tests were torn apart"
    time.sleep(0.02)
""")
    process = project(PASSES, f"--junitxml={tmp_path}/out.xml")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 0, said
    local, more = _ran(tmp_path, "local"), _ran(tmp_path, "local-2")
    expected = [f"{Path(name).stem}[{part}]" for name in names for part in range(3)]
    assert sorted(local + more) == sorted([*expected, "test_here"])
    assert local, said
    assert bool(more) is (len(os.sched_getaffinity(0)) > 1), said


def test_what_failed_last_runs_again_and_nothing_else(project: Any, tmp_path: Path) -> None:
    failing = f"{PASSES}\ndef test_wrong(): assert False"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_other.py").write_text("def test_other(): pass")
    project(failing).communicate(timeout=60)

    process = project(failing, "--lf", f"--junitxml={tmp_path}/out.xml")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1, said
    ran = [name for part in ("cluster", "local", "cluster-2", "local-2") for name in _ran(tmp_path, part)]
    assert ran == ["test_wrong"]


def _ran(folder: Path, part: str) -> list[str]:
    """The tests in the report of one part."""
    report = folder / f"out-{part}.xml"
    if not report.exists():
        return []
    # the report was written by our own pytest a moment ago
    return [case.get("name", "") for case in ElementTree.parse(report).iter("testcase")]  # noqa: S314


def test_a_failure_in_one_part_is_shown_whole_and_fails_all(project: Any) -> None:
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


def test_ctrl_c_takes_down_what_the_tests_of_all_parts_brought_up(
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
def test_a_part_without_tests_does_not_count_beside_one_that_has_some(codes: tuple[int, ...], together: int) -> None:
    assert exit_code(codes) == together
