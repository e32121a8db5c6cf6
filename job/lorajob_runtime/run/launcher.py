"""Starts the training processes of this machine, waits for them and kills them.

torchrun ends with 1 for any failure of its workers, and gives them sessions of their own. So a worker writes its cause
down, and every process is bound to die with the one that started it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.kubernetes import RENDEZVOUS_PORT
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models.provenance import describe
from lorajob_runtime.run import training_failure
from lorajob_runtime.system import cgroup, environment, key_isolation, processes
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
    awaits_data: bool = False
    """The dataset is not prepared yet: the workers import what they need, and wait for `Training.data_is_there`."""

    @property
    def ranks(self) -> range:
        """The ranks of the workers here."""
        return range(self.node * self.processes, (self.node + 1) * self.processes)

    @property
    def log(self) -> Path:
        """What is printed before the workers open their own logs."""
        return self.folder.launcher_log(self.attempt, self.node)


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
    awaits_data: bool = False,
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
        awaits_data=awaits_data,
    )
    return Training(launch)


class Training:
    """The training processes of one attempt, from their start to an explanation of their end."""

    def __init__(self, launch: Launch) -> None:
        """Starts them. The thread that does this must outlive them: the kernel takes its end for the parent's."""
        self._launch = launch
        self._memory_kills_before = cgroup.memory_kills()
        _forget_last_attempt(launch.folder)
        if launch.awaits_data:
            launch.folder.data_awaited.touch()
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with launch.log.open("ab") as output:
            self._process = subprocess.Popen(
                processes.bound_to_parent(key_isolation.confined(command(launch), launch.hidden), parent=os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables(launch, cores=cgroup.usable_cores()),
                start_new_session=True,
            )

    def ended(self, within_seconds: float) -> bool:
        """Whether the processes have ended, waiting for it a little."""
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def data_is_there(self) -> None:
        """Has workers that wait for the dataset go on."""
        self._launch.folder.data_awaited.unlink(missing_ok=True)

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
        return training_failure.explain(
            exit_status=self._process.returncode,
            causes=training_failure.read_causes(self._launch.folder, self._launch.ranks),
            workers=self._launch.processes,
            nodes=self._launch.nodes,
            memory_kills=cgroup.memory_kills() - self._memory_kills_before,
            last_line=last_log_line(self._launch),
            full_disk=str(self._launch.folder.root) if training_failure.is_full(self._launch.folder) else None,
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
"""Has glibc keep what a step frees, in huge pages: on a CPU each step took the same gigabytes from the kernel again."""

_SLEEP_WHILE_WAITING = {"OMP_WAIT_POLICY": "passive"}
"""Has a thread sleep that waits for the others: spinning takes their core from them where another program wants one."""

_GROWING_SEGMENTS = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Has torch's allocator for GPUs grow what it has: every micro-batch has other shapes, which leave holes otherwise."""
_OLD_ALLOCATOR_NAME = "PYTORCH_CUDA_ALLOC_CONF"

_TORCHRUN_VARIABLES = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


def last_log_line(launch: Launch) -> str:
    """The last line that a worker wrote, or else the launcher."""
    logs = [launch.folder.log(launch.attempt, rank) for rank in launch.ranks]
    return training_failure.last_log_line([*logs, launch.log], below=launch.folder.root)


def _forget_last_attempt(folder: RunFolder) -> None:
    folder.work.mkdir(parents=True, exist_ok=True)
    for stale in [folder.stop_request, folder.data_awaited, *folder.work.glob("cause-*.json")]:
        stale.unlink(missing_ok=True)
