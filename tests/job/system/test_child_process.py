"""A module in a process of its own, spoken to in JSON lines."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import DataError, HubError, LorajobError
from lorajob_runtime.system import child_process
from lorajob_runtime.system.child_process import Child
from waiting import wait_until

PROGRAM = """
import os, sys
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.system.child_process import Parent

parent = Parent()
print("a library talks")
while True:
    message = parent.request()
    if "fail" in message:
        parent.fail(DataError("it is broken", hint="mend it"))
        parent.leave()
    if "die" in message:
        print("the last word", file=sys.stderr)
        parent.leave(7)
    if "count" in message:
        for number in range(message["count"]):
            parent.answer({"number": number})
        parent.leave()
    parent.answer({"pid": os.getpid(), "key": os.environ.get("KEY")})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "child_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return "child_program"


def died(status: int, last_line: str) -> LorajobError:
    return HubError(f"{status}: {last_line}")


def test_one_request_has_many_answers_and_what_libraries_print_is_none(module: str, tmp_path: Path) -> None:
    log = tmp_path / "log"

    with child_process.answers(module, {"count": 3}, died=died, variables=os.environ, log=log) as given:
        assert [answer["number"] for answer in given] == [0, 1, 2]

    assert log.read_text() == "a library talks\n"


def test_an_error_of_the_program_is_raised_with_its_class(module: str) -> None:
    with (
        pytest.raises(DataError, match="it is broken") as raised,
        child_process.answers(module, {"fail": True}, died=died, variables=os.environ) as given,
    ):
        list(given)
    assert raised.value.hint == "mend it"


def test_a_death_without_a_word_tells_the_status_and_the_last_line(module: str) -> None:
    with (
        pytest.raises(HubError, match="7: the last word"),
        child_process.answers(module, {"die": True}, died=died, variables=os.environ) as given,
    ):
        list(given)


def test_what_is_raised_while_waiting_ends_the_process(module: str) -> None:
    def tick() -> None:
        raise KeyboardInterrupt

    pids = []
    with (
        suppress(KeyboardInterrupt),
        child_process.answers(module, {}, died=died, variables=os.environ, tick=tick) as given,
    ):
        pids.append(next(given)["pid"])
        pids += given
    [pid] = pids
    assert not Path("/proc", str(pid)).exists()


def test_keys_reach_the_program_and_not_its_environment(module: str) -> None:
    child = Child(module, variables=os.environ)
    child.send({child_process.KEYS: {"KEY": "secret"}})
    answer = child.answer(time.monotonic() + 60)
    child.kill()

    assert answer is not None
    assert answer["key"] == "secret"


def test_a_child_ends_with_its_parent_however_that_ends(module: str, tmp_path: Path) -> None:
    starter = (
        "import os, sys, time\nfrom lorajob_runtime.system.child_process import Child\n"
        f"child = Child({module!r}, variables=os.environ)\nchild.send({{}})\n"
        "print(child.answer(time.monotonic() + 60)['pid'], flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = parent.stdout.readline().strip()
        parent.kill()

    wait_until(lambda: not Path("/proc", pid).exists(), seconds=60, what="the child's end")


@pytest.mark.parametrize("module", ["lorajob_runtime.data", "lorajob_runtime.train.base_model.class_probe"])
def test_a_child_ends_with_its_parent_though_its_input_stays_open(module: str) -> None:
    starts = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-P', '-m', {module!r}]).pid, flush=True)\n"
        "time.sleep(600)"
    )
    reads, writes = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", starts], stdin=reads, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        os.write(writes, b" ")
        wait_until(lambda: _unread(reads) == 0, what="a child that reads its request")

        parent.kill()
        parent.wait()

        wait_until(lambda: not child.exists(), what="its end")
    finally:
        parent.kill()
        parent.communicate()
        os.close(reads)
        os.close(writes)


def _unread(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
