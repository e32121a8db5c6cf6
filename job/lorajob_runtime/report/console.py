"""Shows progress to a person: a bar below everything else on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.text import encodable
from lorajob_runtime.report.lines import Line, Tone, end, lines
from lorajob_runtime.report.progress import Progress, View, bar
from lorajob_runtime.report.sink import Sink, SinkContext, SinkType

_REFRESHES_PER_SECOND = 4
_STYLES: dict[Tone, str] = {"plain": "", "quiet": "dim", "good": "green", "warning": "yellow", "bad": "red"}


class Console:
    """Shows a run's events as they come. What an earlier start of the run has logged is not shown again."""

    name = "console"

    def __init__(
        self,
        stream: IO[str],
        *,
        logging_steps: int = 10,
        width: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`logging_steps`: loss and speed are means of so many steps, and without a terminal each has a line."""
        self._stream = stream
        self._logging_steps = logging_steps
        self._clock = clock
        # events carry milliseconds
        self._began = round(clock(), 3)
        self._progress = Progress(since=self._began, window=logging_steps)
        self._encoding = getattr(stream, "encoding", None)
        self._rich = RichConsole(file=stream, highlight=False, markup=False, emoji=False, width=width)
        self._live: Live | None = None
        self._is_terminal = self._rich.is_terminal and not self._rich.is_dumb_terminal
        self._end: Event | None = None

    def handle(self, event: Event) -> None:
        """Shows one event. The end is kept until the other reports have had their say."""
        self._progress.take(event)
        if event.get("time", self._clock()) < self._began:
            return
        if event["event"] == "end":
            self._end = event
            return
        found = lines(event)
        if self._is_terminal:
            self._show_bar()
        else:
            found = self._plain_progress(event) + found
        for line in found:
            self._print(line)

    def close(self, limit_seconds: float) -> None:
        """Takes the bar away and says how the run ended."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._end is not None:
            for line in end(self._end, self._clock() - self._began):
                self._print(line)
            self._end = None

    def _plain_progress(self, event: Event) -> list[Line]:
        view = self._progress.view
        if event["event"] == "phase":
            return [Line(view.phase)]
        if event["event"] != "step" or not self._is_due(event):
            return []
        parts = view.parts()
        counted = [f"step {parts.pop('count', event['step'])}", parts.pop("percent", "")]
        return [Line("  ".join(filter(None, [*counted, *parts.values()])))]

    def _is_due(self, event: Event) -> bool:
        step: int = event["step"]
        return step % self._logging_steps == 0 or step == event.get("total_steps")

    def _show_bar(self) -> None:
        moving = _Bar(self._progress.view, clock=self._clock, ascii_only=not self._takes_bars())
        if self._live is None:
            self._live = Live(
                moving,
                console=self._rich,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        else:
            self._live.update(moving)

    def _takes_bars(self) -> bool:
        return (self._encoding or "").lower().replace("-", "") == "utf8"

    def _print(self, line: Line) -> None:
        text = encodable(line.text, self._encoding)
        if self._is_terminal:
            # the terminal wraps: a command that is copied then stays whole
            self._rich.print(Text(text, style=_STYLES[line.tone]), soft_wrap=True)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()


class _Bar:
    """The moving line. It is drawn again by a thread of rich's, so it holds values and nothing that changes."""

    def __init__(self, view: View, *, clock: Callable[[], float], ascii_only: bool) -> None:
        self._view = view
        self._clock = clock
        self._ascii_only = ascii_only

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        # the last cell stays free: some terminals wrap when it is written
        width = options.max_width - 1
        before, done, rest = bar(self._view, width, now=self._clock(), ascii_only=self._ascii_only)
        yield Text.assemble((before, "bold"), (done, "green"), rest, no_wrap=True, overflow="crop")


def _open(context: SinkContext) -> Sink | None:
    return None if context.output == "json" else Console(sys.stderr, logging_steps=context.spec.train.logging_steps)


CONSOLE = SinkType(name=Console.name, open=_open, shows_here=True)
