"""SwanLab in trouble: one warning with the way out, everything kept on the disk, and never a wait without a limit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorajob_runtime.report.swanlab.sink import Limits, SwanLab

SOON = Limits(start=1.5, finish=12, offline=10)


def feed(sink: SwanLab, log) -> None:
    for event in log:
        sink.handle(event)


def wait_for(condition, *, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come in time"
        time.sleep(0.02)
    return found


def start_of_sdk(sink: SwanLab, reported) -> None:
    """Waits until the SDK has logged in."""

    def is_ready() -> bool:
        sink.idle()
        return bool(reported.notices)

    wait_for(is_ready)


def sdk_processes(parent: int) -> list[int]:
    """The SDK's processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and b"swanlab.child" in command:
            found.append(int(stat.parent.name))
    return found


def test_a_host_that_is_down_at_the_start_means_offline_and_the_sync_command_works(swanlab_server, reported, small_run):
    swanlab_server.stop()
    sink = reported.sink(limits=SOON)
    feed(sink, [small_run.sample(0), *small_run.steps(1, 4)])
    wait_for(lambda: time.monotonic() > sink._start_deadline)
    feed(sink, [*small_run.steps(5, 6), small_run.end()])
    sink.close(20)

    assert len(reported.warnings) == 1
    swanlab_server.start()
    reported.sync()
    reported.sync()
    experiment = swanlab_server.only_experiment()
    assert (experiment.project, experiment.name) == ("verse", "first-try")
    assert experiment.series("train/loss") == {2: 8.5, 4: 6.5, 6: 4.5}
    assert experiment.texts("Prediction", 0) == ["【Q】question 0\n\n【LLM】answer 0 at 0"]
    assert experiment.twice() == []
    assert experiment.states == ["FINISHED", "FINISHED"]


def test_a_run_that_ends_while_the_host_lets_it_wait_is_kept_offline(swanlab_server, reported, small_run):
    swanlab_server.fault = "hang"
    sink = reported.sink(limits=Limits(finish=11, offline=10))
    feed(sink, [*small_run.steps(1, 4), small_run.end()])
    sink.close(20)

    assert "did not start before the run ended" in reported.warnings[0]
    swanlab_server.stop()
    swanlab_server.fault = None
    swanlab_server.start()
    reported.sync()
    assert sorted(swanlab_server.only_experiment().series("train/loss")) == [2, 4]


def test_a_wrong_key_means_offline(swanlab_server, reported, small_run, monkeypatch):
    monkeypatch.setenv("SWANLAB_API_KEY", "no-such-secret")
    sink = reported.sink(mode="cloud")
    feed(sink, [*small_run.steps(1, 4), small_run.end()])
    sink.close(20)

    (warning,) = reported.warnings
    assert f"{swanlab_server.host} does not accept the API key" in warning
    assert "no-such-secret" not in warning
    monkeypatch.setenv("SWANLAB_API_KEY", swanlab_server.variables()["SWANLAB_API_KEY"])
    reported.sync()
    assert sorted(swanlab_server.only_experiment().series("train/loss")) == [2, 4]


def test_without_a_key_a_run_stays_offline_under_one_id_across_restarts(
    swanlab_server, reported, small_run, monkeypatch
):
    monkeypatch.delenv("SWANLAB_API_KEY")
    first = reported.sink()
    feed(first, [*small_run.steps(1, 4), small_run.end(30)])
    first.close(20)
    second = reported.sink()
    feed(second, [*small_run.steps(1, 4), small_run.end(30), *small_run.steps(5, 8), small_run.end()])
    second.close(20)

    assert len(reported.warnings) == 2
    assert reported.warnings[0] == reported.warnings[1]
    assert swanlab_server.requests == []
    assert len(list(reported.folder.report("swanlog").glob("run-*"))) == 1
    monkeypatch.setenv("SWANLAB_API_KEY", swanlab_server.variables()["SWANLAB_API_KEY"])
    reported.warnings.pop()
    reported.sync()
    experiment = swanlab_server.only_experiment()
    assert sorted(experiment.series("train/loss")) == [2, 4, 6, 8]
    assert experiment.twice() == []


def test_the_cloud_asked_for_without_a_key_says_that_there_is_none(swanlab_server, reported, small_run, monkeypatch):
    monkeypatch.delenv("SWANLAB_API_KEY")
    sink = reported.sink(mode="cloud")
    feed(sink, [*small_run.steps(1, 2), small_run.end()])
    sink.close(20)

    (warning,) = reported.warnings
    assert "SWANLAB_API_KEY is not set" in warning


def test_offline_asked_for_is_no_trouble(swanlab_server, reported, small_run):
    sink = reported.sink(mode="offline")
    feed(sink, [*small_run.steps(1, 2), small_run.end()])
    sink.close(20)

    assert reported.warnings == []
    assert swanlab_server.requests == []
    assert list(reported.folder.report("swanlog").glob("run-*/*.swanlab"))


@pytest.mark.parametrize("fault", ["hang", "drop"])
def test_a_host_lost_in_the_middle_does_not_keep_the_end_and_nothing_is_lost(
    swanlab_server, reported, small_run, fault
):
    sink = reported.sink(limits=Limits(finish=3))
    feed(sink, small_run.steps(1, 2))
    start_of_sdk(sink, reported)
    swanlab_server.fault = fault
    feed(sink, [*small_run.steps(3, 8), small_run.end()])
    sink.close(20)

    assert sdk_processes(os.getpid()) == []
    swanlab_server.stop()
    swanlab_server.fault = None
    swanlab_server.start()
    reported.sync()
    experiment = swanlab_server.only_experiment()
    assert sorted(experiment.series("train/loss")) == [2, 4, 6, 8]
    assert experiment.twice() == []


def test_a_run_goes_on_offline_when_the_sdk_dies(swanlab_server, reported, small_run):
    sink = reported.sink()
    feed(sink, small_run.steps(1, 2))
    start_of_sdk(sink, reported)
    (process_id,) = sdk_processes(os.getpid())
    os.kill(process_id, signal.SIGKILL)
    feed(sink, [*small_run.steps(3, 6), small_run.end()])
    sink.close(20)

    (warning,) = reported.warnings
    assert "ended unexpectedly" in warning
    reported.sync()
    assert sorted(swanlab_server.only_experiment().series("train/loss")) == [2, 4, 6]
    assert swanlab_server.only_experiment().twice() == []


def test_local_writes_for_the_dashboard_one_experiment_across_restarts(swanlab_server, reported, small_run):
    first = reported.sink(mode="local")
    feed(first, [*small_run.steps(1, 4), small_run.end(30)])
    first.close(20)
    second = reported.sink(mode="local")
    feed(second, [*small_run.steps(1, 6), small_run.end()])
    second.close(20)

    assert reported.warnings == []
    assert reported.notices[-1] == f"SwanLab: swanlab watch {reported.folder.report('swanlog')}"
    board = sqlite3.connect(reported.folder.report("swanlog") / "runs.swanlab")
    assert board.execute("select name from experiment").fetchall() == [("first-try",)]
    assert ("train/loss",) in board.execute("select name from tag").fetchall()
    board.close()
    values = "".join(path.read_text() for path in reported.folder.report("swanlog").glob("run-*/logs/*/*.log"))
    assert '"index": 6' in values


def test_disabled_starts_nothing(swanlab_server, reported, small_run):
    sink = reported.sink(mode="disabled")
    feed(sink, [*small_run.steps(1, 2), small_run.end()])
    sink.close(20)

    assert not reported.folder.root.exists()


def test_a_file_named_as_the_package_in_the_working_directory_does_no_harm(
    swanlab_server, reported, small_run, monkeypatch, tmp_path
):
    (tmp_path / "sink.py").write_text("raise RuntimeError('not the package')\n")
    monkeypatch.chdir(tmp_path)
    sink = reported.sink()
    feed(sink, [*small_run.steps(1, 2), small_run.end()])
    sink.close(20)

    assert reported.warnings == []
    assert sorted(swanlab_server.only_experiment().series("train/loss")) == [2]


def test_the_sdk_does_not_outlive_a_killed_supervisor(swanlab_server, reported):
    program = """
import sys, time
from pathlib import Path
from lorajob_runtime.system import environment; from lorajob_runtime.contract import spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.report.swanlab.sink import SwanLab
folder = RunFolder(Path(sys.argv[1]))
sink = SwanLab(spec.parse({"name": "n"}), folder=folder, variables=environment.for_report(('SWANLAB_',)), warn=print)
sink.handle({"event": "phase", "name": "train"})
time.sleep(600)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program, str(reported.folder.root)])
    try:
        (process_id,) = wait_for(lambda: sdk_processes(supervisor.pid))
    finally:
        supervisor.kill()
        supervisor.wait()

    wait_for(lambda: not _is_alive(process_id))


def _is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_login_that_failed_is_explained(swanlab_server):
    from lorajob_runtime.report.swanlab.child import _reason

    assert "answers with status 503" in _with(swanlab_server, "fail", _reason)
    swanlab_server.stop()
    assert _reason(RuntimeError("login failed"), "online") == f"{swanlab_server.host} does not answer"


def test_a_setting_that_swanlab_refuses_is_named():
    from swanlab import Settings

    from lorajob_runtime.report.swanlab.child import _reason

    with pytest.raises(ValueError, match="validation error") as caught:
        Settings(mode="everywhere")

    assert "everywhere" in _reason(caught.value, "offline")


def _with(server, fault: str, reason) -> str:
    server.fault = fault
    return reason(RuntimeError("login failed"), "online")
