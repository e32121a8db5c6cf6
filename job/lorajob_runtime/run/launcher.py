"""Training processes: started, watched, killed, and their end explained.

torchrun ends with 1 whatever its workers ended with, and gives them sessions of their own. So a worker writes its cause
down, and every process is bound to die with the one that started it.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import FailureClass, FullDiskError, LorajobError, OutOfMemoryError, PeerError
from lorajob_runtime.contract.kubernetes import RENDEZVOUS_PORT
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import NotPlainError, open_plain, read_plain
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models.provenance import describe
from lorajob_runtime.system import environment, key_isolation, processes
from lorajob_runtime.train.job import TrainJob

if TYPE_CHECKING:
    from lorajob_runtime.fetch import FetchedModel
    from lorajob_runtime.run.host_checks import Machine

WORKER = "lorajob_runtime.train"


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One attempt at training: `processes` workers on this machine."""

    folder: RunFolder
    attempt: int
    processes: int
    variables: Mapping[str, str]
    """What the workers inherit from the environment."""
    hidden: tuple[Path, ...] = ()
    """What they cannot open: files with keys."""
    worker: str = WORKER
    """The module that every worker runs, with the run folder as its argument."""
    nodes: int = 1
    node: int = 0
    """Which of the run's nodes this is; the first has rank 0."""
    node0_host: str = "127.0.0.1"
    """Where node 0 is, for the processes of all nodes to meet."""

    @property
    def ranks(self) -> range:
        """The ranks of the workers here."""
        return range(self.node * self.processes, (self.node + 1) * self.processes)

    @property
    def log(self) -> Path:
        """What is printed before the workers open their own logs."""
        return self.folder.launcher_log(self.attempt, self.node)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a worker ended, in its own words."""

    rank: int
    failure: FailureClass
    message: str
    hint: str | None


def begin(
    spec: RunSpec,
    model: FetchedModel,
    machine: Machine,
    folder: RunFolder,
    *,
    attempt: int,
    resume_step: int | None = None,
    evaluation_pending: bool = True,
    worker: str = WORKER,
    nodes: int = 1,
    node: int = 0,
    node0_host: str = "127.0.0.1",
) -> Training:
    """Writes down what an attempt is to train, and starts its processes on this machine, without keys to anything.

    `resume_step` and `evaluation_pending` are for rank 0 to know; the other parameters are those of a Launch.
    """
    job = TrainJob(
        spec=spec,
        model_path=str(model.path),
        model_source=model.source,
        model_revision=model.revision,
        base_name=describe(model.source, model.revision).load_name,
        device=machine.device,
        resume_step=resume_step,
        evaluation_pending=evaluation_pending,
        attempt=attempt,
    )
    folder.train_job.parent.mkdir(parents=True, exist_ok=True)
    folder.train_job.write_text(job.dumps())
    launch = Launch(
        folder=folder,
        attempt=attempt,
        processes=machine.processes,
        # transformers loads in parts onto any GPU that it sees
        variables=environment.for_training() | ({"CUDA_VISIBLE_DEVICES": ""} if machine.device == "cpu" else {}),
        hidden=tuple(environment.hidden_files()),
        worker=worker,
        nodes=nodes,
        node=node,
        node0_host=node0_host,
    )
    return Training(launch)


class Training:
    """The training processes of one attempt, from their start to an explanation of their end."""

    def __init__(self, launch: Launch) -> None:
        """Starts them. The thread that does this must outlive them: the kernel takes its end for the parent's."""
        self._launch = launch
        self._memory_kills_before = processes.memory_kills()
        _forget_last_attempt(launch.folder)
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with launch.log.open("ab") as output:
            self._process = subprocess.Popen(
                processes.bound_to_parent(key_isolation.confined(command(launch), launch.hidden), parent=os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables(launch, cores=processes.usable_cores()),
                start_new_session=True,
            )

    def ended(self, within_seconds: float) -> bool:
        """Whether the processes have ended, waiting for it a little."""
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Asks for a checkpoint after the current step, and an end."""
        self._launch.folder.stop_request.touch()

    def kill(self) -> None:
        """Ends every process at once, where they still run."""
        if self._process.poll() is None:
            processes.kill_tree(self._process.pid)
            self._process.wait()

    @functools.cached_property
    def error(self) -> LorajobError | None:
        """Why training ended, None when it did its work. Asked after the end, and found out once."""
        return explain(
            exit_status=self._process.returncode,
            causes=_read_causes(self._launch),
            workers=self._launch.processes,
            nodes=self._launch.nodes,
            memory_kills=processes.memory_kills() - self._memory_kills_before,
            last_line=_last_log_line(self._launch),
            full_disk=str(self._launch.folder.root) if _is_full(self._launch.folder) else None,
        )


def command(launch: Launch) -> list[str]:
    """The command that starts the workers: one alone directly, several by torchrun, which takes seconds to start."""
    # -P: a file in the working directory cannot stand in for a package
    python = [sys.executable, "-P", "-m"]
    worker = [*python, launch.worker, str(launch.folder.root)]
    if launch.processes == 1 and launch.nodes == 1:
        return worker
    torchrun = [*python, "torch.distributed.run"]
    torchrun += ["--standalone", "--local-addr", "127.0.0.1"] if launch.nodes == 1 else _rendezvous(launch)
    torchrun += ["--nproc-per-node", str(launch.processes), "--max-restarts", "0", "--no-python"]
    return [*torchrun, *processes.bound_to_parent(worker, parent=None)]


def _rendezvous(launch: Launch) -> list[str]:
    """torchrun's static rendezvous: unlike the elastic one it keeps the order of the nodes, so rank 0 is on node 0."""
    host = "127.0.0.1" if launch.node == 0 else launch.node0_host
    arguments = ["--nnodes", str(launch.nodes), "--node-rank", str(launch.node), "--rdzv-id", str(launch.attempt)]
    return [*arguments, "--master-addr", host, "--master-port", str(RENDEZVOUS_PORT)]


def variables(launch: Launch, *, cores: int) -> dict[str, str]:
    """The environment of the workers: what they inherit, the cores shared out, and the place of a worker alone."""
    ours = {"OMP_NUM_THREADS": str(max(1, cores // launch.processes)), "PYTHONUNBUFFERED": "1"}
    ours |= _KEEP_FREED_MEMORY | _SLEEP_WHILE_WAITING
    if _OLD_ALLOCATOR_NAME not in launch.variables:
        ours |= _GROWING_SEGMENTS
    if launch.processes == 1 and launch.nodes == 1:
        ours |= {"RANK": "0", "WORLD_SIZE": "1"}
    inherited = {name: value for name, value in launch.variables.items() if name not in _TORCHRUN_VARIABLES}
    return ours | inherited


_KEEP_FREED_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""Has glibc keep what a step frees, in huge pages: on a CPU every step took the same gigabytes from the kernel anew."""

_SLEEP_WHILE_WAITING = {"OMP_WAIT_POLICY": "passive"}
"""Has a thread sleep that waits for the others: spinning takes their core from them where another program wants one."""

_GROWING_SEGMENTS = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Has torch's allocator for GPUs grow what it has: every micro-batch has other shapes, which leave holes otherwise."""
_OLD_ALLOCATOR_NAME = "PYTORCH_CUDA_ALLOC_CONF"

_TORCHRUN_VARIABLES = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|gloo|nccl|process ?group|watchdog", re.IGNORECASE
)
_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def explain(
    *,
    exit_status: int,
    causes: Sequence[Cause],
    workers: int,
    nodes: int = 1,
    memory_kills: int,
    last_line: str,
    full_disk: str | None = None,
) -> LorajobError | None:
    """The error that training ended with, None for success.

    `exit_status` is the launcher's, negative for a signal; `full_disk` a folder that takes no more. Of several causes
    the one that explains the others counts: ranks that lost a peer only tell that it is gone. A rank that was killed
    leaves no cause; where every rank here left one and lost a peer, that peer is on another of the `nodes`.
    """
    if exit_status == 0:
        return None
    cause = min(causes, key=_distance, default=None)
    # torchrun, which hides how its workers ended, also starts a single one where there are several nodes
    by_torchrun = workers > 1 or nodes > 1
    killed = exit_status == -signal.SIGKILL or (by_torchrun and len(causes) < workers)
    if memory_kills > 0 and killed and (cause is None or cause.failure is errors.UNEXPECTED):
        return OutOfMemoryError(
            "a training process was killed: the memory of this machine or container was used up",
            hint=errors.HOST_MEMORY_HINT,
        )
    if cause is not None and cause.failure is errors.UNEXPECTED and _NO_ROOM.search(cause.message):
        return FullDiskError(f"training could not write: {cause.message}")
    if cause is None and full_disk is not None:
        return FullDiskError(f"cannot write {full_disk}: {os.strerror(errno.ENOSPC)}")
    if nodes > 1 and len(causes) == workers and all(_is_echo(each) for each in causes):
        return PeerError(f"a process on another node was lost: {causes[0].message}")
    if cause is not None:
        return errors.error_named(cause.failure.name, cause.message, hint=cause.hint)
    how = f"signal {-exit_status}" if exit_status < 0 else f"exit code {exit_status}"
    return LorajobError(f"training ended with {how} and gave no cause; the last line of its log: {last_line or 'none'}")


def _distance(cause: Cause) -> tuple[int, int]:
    """How far a cause is from what started it all; among equals the lowest rank speaks."""
    if cause.failure is errors.UNEXPECTED:
        return (3 if _is_echo(cause) else 2), cause.rank
    return (1 if cause.failure is errors.STOPPED else 0), cause.rank


def _is_echo(cause: Cause) -> bool:
    """Whether a cause only tells that another process is gone."""
    return cause.failure is errors.UNEXPECTED and _LOST_PEER.search(cause.message) is not None


def _read_causes(launch: Launch) -> list[Cause]:
    causes = []
    for rank in launch.ranks:
        try:
            values = json.loads(read_plain(launch.folder.cause(rank)))
            failure = errors.from_code(int(values["exit_code"]))
            causes.append(Cause(rank=rank, failure=failure, message=values["message"], hint=values.get("hint")))
        except (OSError, ValueError, KeyError, TypeError, NotPlainError):
            # a worker that was killed while it wrote has left no cause
            continue
    return causes


def _is_full(folder: RunFolder) -> bool:
    """Whether the disk takes no more: a worker that ends for that reason cannot write it down."""
    probe = folder.work / "room"
    try:
        probe.write_bytes(bytes(1 << 16))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return False


def _last_log_line(launch: Launch) -> str:
    """The last line that a worker, or else the launcher, wrote and that has a word in it."""
    logs = [launch.folder.log(launch.attempt, rank) for rank in launch.ranks]
    for log in [*logs, launch.log]:
        try:
            with open_plain(log, below=launch.folder.root) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except (OSError, NotPlainError):
            continue
        for line in reversed(lines):
            if re.search(r"\w", line):
                return line.strip()[:300]
    return ""


def _forget_last_attempt(folder: RunFolder) -> None:
    folder.work.mkdir(parents=True, exist_ok=True)
    for stale in [folder.stop_request, *folder.work.glob("cause-*.json")]:
        stale.unlink(missing_ok=True)
