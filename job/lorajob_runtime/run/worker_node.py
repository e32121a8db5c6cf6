"""Runs a node other than node 0: its weights, training processes and logs. Node 0 decides the rest.

It outlives node 0: when that is lost, or ended with something that a retry can help, the next one finds it waiting with
its weights loaded.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import LorajobError, PeerError, StoppedError
from lorajob_runtime.contract.kubernetes import COORDINATOR_PORT, TerminationMessage, service_host
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import to_error, to_termination_message
from lorajob_runtime.run import coordinator_client, launcher
from lorajob_runtime.run.coordinator_client import CoordinatorClient
from lorajob_runtime.run.host_checks import Machine, check_products, check_trainable, choose_machine
from lorajob_runtime.run.launcher import WORKER, Training
from lorajob_runtime.run.limits import Limits, limits_of
from lorajob_runtime.run.node_logs import NodeLogs, print_line
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.run.start import folder_of
from lorajob_runtime.storage import resume
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.storage.store import Store
from lorajob_runtime.system import run_lock
from lorajob_runtime.system.environment import Environment, Pod

if TYPE_CHECKING:
    from lorajob_runtime.fetch import FetchedModel


_LAST_MOMENT_SECONDS = 3.0
_SHARED_SECONDS = 15.0
"""How long a node whose part failed listens whether node 0's failed too, of itself."""
_NO_ATTEMPT = 1 << 31
"""Later than any: before training begins only its end tells that node 0 failed too."""
_LOOK_EVERY_SECONDS = 20.0
"""How often a node that waits for node 0 looks whether the run is done."""


def run(
    spec: RunSpec,
    environment: Environment,
    pod: Pod,
    *,
    node0_host: str | None = None,
    port: int = COORDINATOR_PORT,
    limits: Limits | None = None,
    worker: str = WORKER,
) -> TerminationMessage:
    """Serves node 0 until the run is over or this node cannot go on. Returns how it ended.

    `node0_host` and `port` are where node 0 listens; None: its name in the cluster. Runs in the main thread.
    """
    limits = limits or limits_of(environment)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals(echo_seconds=limits.echo))
        try:
            check_trainable(spec)
            machine = choose_machine(processes=None, gpus=spec.resources.gpus, device=environment.device)
            check_products(spec, machine)
            folder = folder_of(spec, environment)
            stack.enter_context(run_lock.hold(folder.lock))
            store = open_store(spec.storage.uri or "", spec.run_name, environment)
            logs = stack.enter_context(NodeLogs(store, folder, limits, signals))
            worker_node = WorkerNode(
                spec=spec,
                environment=environment,
                node=pod.node,
                node0_host=node0_host or service_host(pod.job, 0),
                port=port,
                secret=pod.uid,
                machine=machine,
                folder=folder,
                store=store,
                limits=limits,
                signals=signals,
                logs=logs,
                worker=worker,
            )
            return worker_node.run()
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            return to_termination_message(to_error(caught, forced=signals.forced, disk=str(environment.work)))


@dataclass(frozen=True, kw_only=True)
class WorkerNode:
    """One node's part in a run, whose folder this process holds."""

    spec: RunSpec
    environment: Environment
    node: int
    node0_host: str
    port: int
    secret: str
    machine: Machine
    folder: RunFolder
    store: Store
    limits: Limits
    signals: StopSignals
    logs: NodeLogs
    worker: str

    def run(self) -> TerminationMessage:
        """Serves one node 0 after another. Raises what this node ends with."""
        model: FetchedModel | None = None
        while True:
            with self.signals.interruptible():
                client = self._join()
            if client is None:
                return to_termination_message(None, "the run was over before this node started")
            try:
                if model is None:
                    try:
                        model = self._fetch()
                    except LorajobError as error:
                        if not self._is_counted(error, client, _NO_ATTEMPT):
                            raise
                        print_line(f"node 0 failed too, so this node waits for the next attempt: {error.message}")
                        continue
                client.ready()
                termination = self._serve(client, model)
            finally:
                client.close()
            if termination is not None:
                return termination
            print_line("node 0 is gone or has ended; waiting for the next attempt")

    def _join(self) -> CoordinatorClient | None:
        """The connection to node 0; None when it will not come, since the run is done. Raises PeerError."""
        deadline = time.monotonic() + self.limits.stall
        while True:
            try:
                patience = min(_LOOK_EVERY_SECONDS, self.limits.stall)
                return coordinator_client.join(
                    self.spec.run_name,
                    node=self.node,
                    host=self.node0_host,
                    port=self.port,
                    secret=self.secret,
                    patience_seconds=patience,
                )
            except PeerError:
                if self._is_done():
                    return None
                if time.monotonic() > deadline:
                    raise

    def _is_done(self) -> bool:
        try:
            return resume.is_published(self.store)
        except LorajobError as error:
            print_line(f"neither node 0 nor storage answers: {error}")
            return False

    def _fetch(self) -> FetchedModel:
        from lorajob_runtime.fetch import fetch

        with self.signals.interruptible():
            return fetch(self.spec.model, environment=self.environment, notify=print_line)

    def _serve(self, client: CoordinatorClient, model: FetchedModel) -> TerminationMessage | None:
        """Trains when node 0 says so. Returns how the run ended, None when another node 0 will come."""
        while True:
            if self.signals.requested:
                raise StoppedError("stopped between two attempts at training")
            if (end := client.end) is not None:
                return end if errors.from_name(end.failure).final else None
            if client.is_lost:
                return None
            if (attempt := client.take_start()) is not None:
                error = self._train(client, model, attempt)
                self.logs.upload()
                client.ended(attempt, to_termination_message(error))
                if error is not None and not self._is_of_others(error) and not self._is_counted(error, client, attempt):
                    raise error
                client.ready()
            client.wait()

    def _is_of_others(self, error: LorajobError) -> bool:
        """Whether it is for node 0 to say what comes next: this node did nothing wrong and was not asked to stop."""
        return isinstance(error, PeerError) or (isinstance(error, StoppedError) and not self.signals.requested)

    def _is_counted(self, error: LorajobError, client: CoordinatorClient, attempt: int) -> bool:
        """Whether node 0 fails of the same: then its pod ends and counts, and this one stays for the next attempt.

        So an attempt costs the run one of its retries, on however many nodes it failed.
        """
        if error.failure.final or self.signals.requested:
            return False
        return is_counted(client, attempt, patience_seconds=_SHARED_SECONDS)

    def _train(self, client: CoordinatorClient, model: FetchedModel, attempt: int) -> LorajobError | None:
        training = launcher.begin(
            self.spec,
            model,
            self.machine,
            self.folder,
            attempt=attempt,
            worker=self.worker,
            nodes=self.spec.resources.nodes,
            node=self.node,
            node0_host=self.node0_host,
        )
        try:
            return self._watch(training, client, attempt)
        finally:
            training.kill()

    def _watch(self, training: Training, client: CoordinatorClient, attempt: int) -> LorajobError | None:
        """Waits for training to end. Returns why it did, None when it did its work."""
        is_asked = False
        while not training.ended(within_seconds=self.limits.poll):
            if self.signals.requested and not is_asked:
                training.ask_to_stop()
                print_line("stopping after this step; node 0 writes a checkpoint")
                is_asked = True
            if client.end is not None or client.is_lost or client.is_given_up(attempt):
                # what ended it here may be the cause of all, and takes a moment to be told
                if training.ended(within_seconds=_LAST_MOMENT_SECONDS):
                    break
                return PeerError("the connection to node 0 was lost, or node 0 gave this attempt up")
        return training.error


def is_counted(client: CoordinatorClient, attempt: int, *, patience_seconds: float) -> bool:
    """Waits a moment for node 0 to say that it ends of this attempt itself. Returns whether it did."""
    deadline = time.monotonic() + patience_seconds
    while not client.is_counted(attempt):
        if time.monotonic() > deadline:
            return False
        client.wait()
    return True
