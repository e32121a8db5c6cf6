"""Holds the reports of one start of a run: opens them, hands them every event, and closes them within a limit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.report import registry
from lorajob_runtime.report.fanout import Fanout
from lorajob_runtime.report.sink import Output, Sink
from lorajob_runtime.run.event_stream import EventWriter
from lorajob_runtime.storage.open import run_folder
from lorajob_runtime.system.environment import Environment


class Reports:
    """Those that show the run here, from the beginning, and those that send it elsewhere, once it has an event log.

    The latter may have something to say as they end, so they are closed first.
    """

    def __init__(
        self, spec: RunSpec, environment: Environment, *, output: Output, listeners: Sequence[Sink] = ()
    ) -> None:
        """`listeners` are the caller's own sinks; they get every event that is shown here, the end last."""
        self._spec = spec
        self._environment = environment
        self._output = output
        folder = _folder_of(spec, environment)
        self._here: list[Sink] = [*self._open(folder, shows_here=True, warn=_print, notify=_print), *listeners]
        self._shown: Fanout | None = None
        self._sent: Fanout | None = None

    def notice(self, message: str) -> None:
        """Shows a message before there is an event log."""
        for sink in self._here:
            sink.handle({"event": "report", "time": time.time(), "name": "notice", "message": message})

    def start(self, folder: RunFolder, events: EventWriter) -> None:
        """From now on `post` may be called; what the sinks have to say goes to `events`."""
        sent = self._open(folder, shows_here=False, warn=events.warn, notify=events.notice)
        self._shown, self._sent = Fanout(self._here, events.warn), Fanout(sent, events.warn)

    def post(self, event: Event) -> None:
        """Queues an event for every sink."""
        for fanout in (self._shown, self._sent):
            if fanout is not None:
                fanout.post(event)

    def close_sent(self, limit_seconds: float) -> None:
        """Has the sinks that send the run elsewhere finish."""
        if self._sent is not None:
            self._sent.close(limit_seconds)

    def close_shown(self, limit_seconds: float) -> None:
        """Has the sinks that show the run here finish; after `close_sent`, whose warnings they still show."""
        if self._shown is not None:
            self._shown.close(limit_seconds)

    def end_early(self, end: Event, limit_seconds: float) -> None:
        """Shows an end before there is an event log: the run may be another process's."""
        fanout = Fanout(self._here, warn=lambda _: None)
        fanout.post(end)
        fanout.close(limit_seconds)

    def _open(
        self, folder: RunFolder, *, shows_here: bool, warn: Callable[[str], None], notify: Callable[[str], None]
    ) -> list[Sink]:
        return registry.open(
            self._spec,
            folder,
            self._environment,
            output=self._output,
            shows_here=shows_here,
            warn=warn,
            notify=notify,
        )


def _folder_of(spec: RunSpec, environment: Environment) -> RunFolder:
    """The run's folder. Where none can be told, the start ends with the reason, which these reports then show."""
    try:
        return run_folder(spec.storage.uri or "", spec.run_name, environment)
    except Exception:  # noqa: BLE001 as said, and whatever it is
        return RunFolder(environment.work / "no-storage")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 there is no event log yet
