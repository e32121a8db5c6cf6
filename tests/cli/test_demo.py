"""The demo leaves nothing running, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def _processes_naming(folder: Path) -> list[int]:
    """Processes on whose command line a folder stands."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(int(entry.parent.name))
    return found


def _demo(folder: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_server(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    while line := demo.stdout.readline():
        if "SeaweedFS answers" in line:
            return
    pytest.fail("the demo ended before its server answered")


def test_a_step_that_fails_ends_the_demo_in_one_line_and_its_server_with_it(tmp_path: Path) -> None:
    with _demo(tmp_path, LORAJOB_DEVICE="nonsense") as demo:
        _, err = demo.communicate(timeout=120)

    assert demo.returncode == 1
    assert err.splitlines()[-1] == "demo: error: `lorajob run` ended with exit code 10"
    assert "Traceback" not in err
    assert _processes_naming(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running_when_the_demo_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    with _demo(tmp_path) as demo:
        _wait_for_server(demo)
        assert _processes_naming(tmp_path)

        demo.send_signal(number)
        demo.communicate(timeout=60)

    wait_until(lambda: not _processes_naming(tmp_path), what="the end of the demo's processes")
