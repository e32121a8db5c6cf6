"""What a report sink is: it takes a run's events, and its SinkType says how it is opened and what it keeps.

Sinks read events and decide nothing about the run. A sink may fail or hang: the fan-out keeps it away from training.
Nothing here may be waited for without a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system.environment import Environment

Output = Literal["text", "json", "job"]
"""What reads the output of this process: a person, a program (JSON lines), or a pod's log beside the run's Job."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkContext:
    """What a sink is opened with, at every start of a run."""

    spec: RunSpec
    folder: RunFolder
    environment: Environment
    variables: Mapping[str, str]
    """The environment variables that are the sink's own, keys included."""
    output: Output
    warn: Callable[[str], None]
    """Takes one line about something that went wrong, with what to do."""
    notify: Callable[[str], None]
    """Takes one line that the user should read now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkType:
    """The facts of one sink, for the registry, storage and the environment."""

    name: str
    open: Callable[[SinkContext], Sink | None]
    """Returns None where this run does not report there. It must be quick: what takes time belongs in `handle`."""
    shows_here: bool = False
    """It shows the run in this process's output or on its Job: opened before anything can fail, closed last."""
    folder: str = ""
    """The folder of its own below the run's, `RunFolder.report(folder)`: storage gets a copy when the run ends."""
    variables: tuple[str, ...] = ()
    """How the names of its environment variables begin. No other process of the run gets them."""
