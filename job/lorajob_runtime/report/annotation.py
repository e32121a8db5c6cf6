"""The progress annotation: how far the run is, on its own Job, where one list of Jobs shows it for every run."""

from __future__ import annotations

import time
from collections.abc import Callable

from lorajob_runtime.apiserver import RefusedError
from lorajob_runtime.events import Event
from lorajob_runtime.pod import Progress
from lorajob_runtime.report import progress

EVERY_SECONDS = 15.0
"""Between two patches that only tell of more steps; a new phase is told at once."""


REFUSALS = 3
"""In a row switch the report off: one may be a token's renewal, or a policy's."""


class ProgressAnnotation:
    """Patches the annotation of the run's Job as events come. One that fails is left out: the next one says it all."""

    name = "the progress annotation"

    def __init__(
        self,
        pod: str,
        patch: Callable[[str], None],
        *,
        logging_steps: int,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`patch` sets the annotation to a text. It raises RefusedError where it never will, OSError for this time."""
        self._pod = pod
        self._patch = patch
        self._every_seconds = every_seconds
        self._clock = clock
        # events carry milliseconds
        self._began = round(clock(), 3)
        self._progress = progress.Progress(since=self._began, window=logging_steps)
        self._attempt = 0
        self._step: Event = {}
        self._trained: progress.View | None = None
        self._stored: int | None = None
        self._note = ""
        self._end: Event | None = None
        self._is_news = False
        self._next_at = self._began
        self._refusals = 0

    def handle(self, event: Event) -> None:
        """Takes one event. What an earlier start of the run has logged counts, and is not told again."""
        self._take(event)
        if event.get("time", self._clock()) < self._began:
            return
        self._is_news = True
        if event["event"] in ("phase", "end"):
            self._next_at = self._clock()
        self.idle()

    def idle(self) -> None:
        """Tells what is new when it is time to."""
        if self._is_news and self._clock() >= self._next_at:
            self._tell()

    def close(self, limit_seconds: float) -> None:
        """Tells what was not told yet."""
        if self._is_news and limit_seconds > 0:
            self._tell()

    def _take(self, event: Event) -> None:
        self._progress.take(event)
        kind, name = event["event"], event.get("name")
        if kind == "step":
            self._step, self._trained = event, self._progress.view
        elif kind == "phase":
            self._note = ""
        elif kind == "report" and name == "attempt":
            self._attempt, self._end = event["number"], None
        elif kind == "report" and name == "stored":
            self._stored = event["step"]
        elif kind == "report" and name == "notice":
            self._note = str(event["message"])
        elif kind == "end" and event.get("time", self._clock()) >= self._began:
            self._end = event

    def _tell(self) -> None:
        self._next_at = self._clock() + self._every_seconds
        try:
            self._patch(self._now().dumps())
        except OSError as error:
            self._refusals = self._refusals + 1 if isinstance(error, RefusedError) else 0
            if self._refusals >= REFUSALS:
                raise
            return
        self._is_news, self._refusals = False, 0

    def _now(self) -> Progress:
        view, trained, end = self._progress.view, self._trained, self._end or {}
        return Progress(
            pod=self._pod,
            attempt=self._attempt,
            time=round(self._clock(), 3),
            phase="end" if end else view.phase,
            step=self._step.get("step", 0),
            total_steps=self._step.get("total_steps"),
            epoch=self._step.get("epoch"),
            loss=_rounded(trained.loss if trained else None, 5),
            tokens_per_second=_rounded(trained.tokens_per_second if trained else None, 1),
            seconds_left=None if end else _rounded(view.seconds_left, 1),
            checkpoint=self._stored,
            note="" if view.phase == "train" else self._note,
            exit_code=end.get("exit_code"),
            failure=end.get("class"),
            message=str(end.get("message") or ""),
            hint=str(end.get("hint") or ""),
        )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
