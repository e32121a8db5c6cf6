"""Runs a pod's part of a run: the supervisor, or a worker node, with what only a cluster has."""

from __future__ import annotations

from contextlib import ExitStack

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import PEER, ConfigError, LorajobError
from lorajob_runtime.contract.kubernetes import COORDINATOR_PORT, TerminationMessage
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import to_termination_message
from lorajob_runtime.run import start, supervisor, worker_node
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.log_forwarder import LogForwarder
from lorajob_runtime.run.termination_message import EndListener
from lorajob_runtime.system.environment import Environment, Pod


def run(spec: RunSpec, environment: Environment, pod: Pod) -> TerminationMessage:
    """Runs this pod's part of the run. Returns how it ended."""
    with ExitStack() as stack:
        try:
            logs = start.folder_of(spec, environment).logs
        except LorajobError as error:
            return to_termination_message(error)
        stack.enter_context(LogForwarder(logs, _print))
        if pod.node > 0:
            return worker_node.run(spec, environment, pod)
        if spec.resources.nodes == 1:
            return _attempt(spec, environment, pod, coordinator=None)
        return _lead(spec, environment, pod)


def _lead(spec: RunSpec, environment: Environment, pod: Pod) -> TerminationMessage:
    """Node 0 of several. When another is lost it goes on in this pod, from the last checkpoint, once that is back."""
    try:
        coordinator = Coordinator(spec.run_name, nodes=spec.resources.nodes, secret=pod.uid)
    except OSError as error:
        return to_termination_message(
            ConfigError(f"node 0 cannot listen on port {COORDINATOR_PORT} for the other nodes: {error}")
        )
    for _ in range(spec.resources.retries + 1):
        termination = _attempt(spec, environment, pod, coordinator=coordinator)
        if termination.exit_code != PEER.code:
            break
    coordinator.end(termination)
    return termination


def _attempt(
    spec: RunSpec, environment: Environment, pod: Pod, *, coordinator: Coordinator | None
) -> TerminationMessage:
    ending = EndListener()
    code = supervisor.run(spec, environment, output="job", listeners=[ending], coordinator=coordinator)
    if ending.termination is not None and ending.termination.exit_code == code:
        return ending.termination
    return TerminationMessage(
        exit_code=code, failure=errors.from_code(code).name, message="see the log of this pod for the cause"
    )


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 the container's log
