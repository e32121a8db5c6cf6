"""Runs a pod's part of a run: the supervisor with what only a cluster has, and the termination message."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import PEER, ConfigError, LorajobError
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.kubernetes import COORDINATOR_PORT, TERMINATION_MESSAGE_PATH, TerminationMessage
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import to_termination_message
from lorajob_runtime.run import start, supervisor, worker_node
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.log_forwarder import LogForwarder
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


def write_termination_message(termination: TerminationMessage, path: Path = Path(TERMINATION_MESSAGE_PATH)) -> None:
    """Writes the termination message. A pod that cannot take it ends with its exit code alone."""
    try:
        path.write_text(termination.dumps(), encoding="utf-8")
    except OSError as error:
        _print(f"cannot write the termination message to {path}: {error}")


class EndListener:
    """A sink that keeps how the run ended."""

    name = "ending"

    def __init__(self) -> None:
        self.termination: TerminationMessage | None = None

    def handle(self, event: Event) -> None:
        """Takes one event; the log of a resumed run holds the ends of earlier starts, and the last one stands."""
        if event["event"] == "end":
            self.termination = TerminationMessage(
                exit_code=int(event["exit_code"]),
                failure=str(event["class"]),
                message=str(event.get("message") or ""),
                hint=str(event.get("hint") or ""),
            )

    def close(self, limit_seconds: float) -> None:
        """Nothing to finish."""


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
