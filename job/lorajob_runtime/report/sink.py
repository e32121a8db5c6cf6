"""Where a run's events go: the console, JSON lines, SwanLab. Sinks read events and decide nothing about the run.

A sink may fail or hang: the fan-out keeps it away from training. Nothing here may be waited for without a limit.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lorajob_runtime.contract.events import Event


class Sink(Protocol):
    """Takes a run's events, all of them in their order, from the first line of the log on, also after a restart."""

    @property
    def name(self) -> str:
        """What warnings call it."""

    def handle(self, event: Event) -> None:
        """Takes one event. May be slow; an exception switches the sink off."""

    def close(self, limit_seconds: float) -> None:
        """Finishes within the limit. May be called with 0, from another thread, while `handle` hangs: let go then."""


@runtime_checkable
class IdleSink(Protocol):
    """A sink that has something to look after while no event comes."""

    def idle(self) -> None:
        """Called about once a second then, in the thread that calls `handle`."""
