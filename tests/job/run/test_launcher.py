"""How training processes are started, and which of their causes is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import FailureClass, LorajobError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.run import launcher, training_failure
from lorajob_runtime.run.launcher import Launch, last_log_line
from lorajob_runtime.run.training_failure import Cause
from lorajob_runtime.system import cgroup, processes


def cause(rank: int, failure: FailureClass, message: str = "its message") -> Cause:
    return Cause(rank=rank, failure=failure, message=message, hint="its hint")


def explain(
    *causes: Cause, status: int = 1, workers: int = 2, nodes: int = 1, kills: int = 0, full: str | None = None
) -> LorajobError:
    error = training_failure.explain(
        exit_status=status,
        causes=causes,
        workers=workers,
        nodes=nodes,
        memory_kills=kills,
        last_line="bye",
        full_disk=full,
    )
    assert error is not None
    return error


def test_training_that_did_its_work_has_no_error() -> None:
    assert training_failure.explain(exit_status=0, causes=[], workers=2, memory_kills=3, last_line="") is None


LOST_PEER = cause(0, errors.UNEXPECTED, "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:4711")


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (cause(1, errors.UNEXPECTED, "KeyError: 'x'"), "KeyError: 'x'"),
        (cause(1, errors.DIVERGED, "the loss is NaN"), "the loss is NaN"),
        (cause(1, errors.STOPPED, "stopped at step 3"), "stopped at step 3"),
    ],
)
def test_a_rank_that_lost_its_peer_does_not_hide_why(others: Cause, told: str) -> None:
    error = explain(LOST_PEER, others)

    assert error.message == told
    assert error.failure is others.failure
    assert error.hint == "its hint"


def test_a_failure_comes_before_a_stop_that_other_ranks_made() -> None:
    assert explain(cause(0, errors.STOPPED), cause(1, errors.OUT_OF_MEMORY)).failure is errors.OUT_OF_MEMORY


def test_of_causes_of_the_same_kind_the_lowest_rank_tells() -> None:
    assert explain(cause(1, errors.DATA, "from 1"), cause(0, errors.DATA, "from 0")).message == "from 0"


def test_a_rank_that_the_kernel_killed_for_memory_is_out_of_memory() -> None:
    assert explain(LOST_PEER, kills=1).failure is errors.OUT_OF_MEMORY
    assert explain(status=-signal.SIGKILL, workers=1, kills=1).failure is errors.OUT_OF_MEMORY
    assert "resources.memory" in explain(LOST_PEER, kills=1).hint, "more or larger GPUs would not help"


def test_a_lone_rank_of_a_node_is_out_of_memory_though_torchrun_hides_how_it_ended() -> None:
    error = explain(status=1, workers=1, nodes=2, kills=1)

    assert error.failure is errors.OUT_OF_MEMORY
    assert "resources.memory" in error.hint


def test_a_kill_without_a_memory_kill_is_unexpected() -> None:
    error = explain(status=-signal.SIGKILL, workers=1)

    assert error.failure is errors.UNEXPECTED
    assert "signal 9" in error.message


def test_a_memory_kill_of_somebody_else_does_not_change_a_known_cause() -> None:
    assert explain(cause(0, errors.DIVERGED), kills=1).failure is errors.DIVERGED


def test_a_full_disk_is_storage_also_where_the_worker_could_not_say_so() -> None:
    said = cause(0, errors.UNEXPECTED, "SafetensorError: I/O error: No space left on device (os error 28)")

    assert explain(said).failure is errors.STORAGE
    assert (
        explain(full="/here").message
        == explain(said, full="/here").message
        == "cannot write /here: No space left on device"
    )
    assert explain(full="/here").failure is errors.STORAGE


def test_without_a_cause_the_last_line_of_the_log_is_told() -> None:
    assert "exit code 3" in explain(status=3).message
    assert explain(status=3).message.endswith("bye")


def launched(tmp_path: Path, count: int, **variables: str) -> Launch:
    return Launch(folder=RunFolder(tmp_path), attempt=1, processes=count, variables=variables)


def test_one_process_needs_no_launcher_and_has_no_place_of_another_one(tmp_path: Path) -> None:
    one = launched(tmp_path, 1, LOCAL_RANK="3", RANK="3", MASTER_ADDR="elsewhere", PATH="/bin")

    assert launcher.command(one) == [sys.executable, "-P", "-m", "lorajob_runtime.train", str(tmp_path)]
    variables = launcher.variables(one, cores=6)
    assert variables.items() >= {"PATH": "/bin", "RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "6"}.items()
    assert not variables.keys() & {"LOCAL_RANK", "MASTER_ADDR"}


def test_the_workers_allocator_keeps_what_a_step_frees_unless_the_user_set_it(tmp_path: Path) -> None:
    assert launcher.variables(launched(tmp_path, 1), cores=1)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert launcher.variables(launched(tmp_path, 1, GLIBC_TUNABLES=""), cores=1)["GLIBC_TUNABLES"] == ""


def test_threads_of_workers_sleep_while_they_wait_unless_the_user_wants_otherwise(tmp_path: Path) -> None:
    assert launcher.variables(launched(tmp_path, 1), cores=2)["OMP_WAIT_POLICY"] == "passive"
    assert launcher.variables(launched(tmp_path, 1, OMP_WAIT_POLICY="active"), cores=2)["OMP_WAIT_POLICY"] == "active"


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}),
    ],
)
def test_a_gpus_memory_is_taken_in_segments_that_grow_unless_the_user_chose(
    tmp_path: Path, theirs: dict[str, str], expected: dict[str, str]
) -> None:
    variables = launcher.variables(launched(tmp_path, 1, **theirs), cores=1)

    assert {name: value for name, value in variables.items() if "ALLOC_CONF" in name} == expected


def test_cores_are_shared_out_and_a_setting_of_the_user_stays(tmp_path: Path) -> None:
    assert launcher.variables(launched(tmp_path, 4), cores=6)["OMP_NUM_THREADS"] == "1"
    assert launcher.variables(launched(tmp_path, 2, OMP_NUM_THREADS="5"), cores=6)["OMP_NUM_THREADS"] == "5"


def test_a_process_whose_parent_is_gone_before_it_starts_ends(tmp_path: Path) -> None:
    # the child's parent is this process and not process 1
    command = processes.bound_to_parent(["touch", str(tmp_path / "ran")], parent=1)

    assert subprocess.run(command).returncode == 128 + signal.SIGKILL
    assert not (tmp_path / "ran").exists()


def test_a_whole_tree_of_processes_is_killed_whatever_sessions_it_has(tmp_path: Path, wait_until) -> None:
    script = f"echo $$ > {tmp_path}/inner; sleep 60"
    tree = subprocess.Popen(["sh", "-c", f"setsid sh -c '{script}' & wait"])
    inner = tmp_path / "inner"
    wait_until(lambda: inner.exists() and inner.read_text().strip(), what="the inner process")

    processes.kill_tree(tree.pid)

    assert tree.wait() == -signal.SIGKILL
    wait_until(lambda: _is_gone(int(inner.read_text())), what="the inner process's end")


def _is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_cores_are_at_least_one_and_at_most_those_of_the_machine() -> None:
    assert 1 <= cgroup.usable_cores() <= (os.cpu_count() or 1)
    assert cgroup.memory_kills() >= 0


def test_a_link_in_the_place_of_a_log_gives_no_last_line_of_a_file_elsewhere(tmp_path: Path) -> None:
    launch = launched(tmp_path, 2)
    (tmp_path / "token").write_text("a-key")
    launch.log.parent.mkdir(parents=True)
    launch.folder.log(1, 0).symlink_to(tmp_path / "token")
    os.mkfifo(launch.folder.log(1, 1))
    launch.log.write_text("0" * 10_000 + "\nthe launcher's last line\n")

    assert last_log_line(launch) == "the launcher's last line"
