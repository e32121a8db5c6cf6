"""Writes a pod's termination message, from which Kubernetes and the command line learn how its part of a run ended."""

from __future__ import annotations

from pathlib import Path

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.kubernetes import TERMINATION_MESSAGE_PATH, TerminationMessage


def write(termination: TerminationMessage, path: Path = Path(TERMINATION_MESSAGE_PATH)) -> None:
    """Writes the termination message. A pod that cannot take it ends with its exit code alone."""
    try:
        path.write_text(termination.dumps(), encoding="utf-8")
    except OSError as error:
        print(f"cannot write the termination message to {path}: {error}", flush=True)  # noqa: T201 the container's log


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
