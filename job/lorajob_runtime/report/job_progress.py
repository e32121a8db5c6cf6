"""Writes how far the run is into an annotation of its own Job, where one list of Jobs shows it for every run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.kubernetes import PROGRESS_ANNOTATION, PROGRESS_EVERY_SECONDS, Progress
from lorajob_runtime.report import job_api, progress
from lorajob_runtime.report.job_api import RefusedError
from lorajob_runtime.report.sink import Sink, SinkContext, SinkType

EVERY_SECONDS = 15.0
"""Between two patches that only tell of more steps; a new phase is told at once."""

LONGEST_PAUSE_SECONDS = 240.0
"""Between two tries at an API server that refuses: the cause may be repaired while the run continues."""

_LAST_PAUSE_SECONDS = 1.0
_OF_TRAINING = ("step", "evaluation", "sample", "checkpoint")


class ProgressAnnotation:
    """Patches the annotation of the run's Job as events come, and now and then while none comes.

    One that fails is left out: the next one says it all. It is never given up; pauses grow while it is refused.
    """

    name = "the progress annotation"

    def __init__(
        self,
        pod: str,
        patch: Callable[[str], None],
        *,
        logging_steps: int,
        warn: Callable[[str], None] = lambda _: None,
        signs_of_life: Callable[[], float | None] = lambda: None,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`patch` sets the annotation to a text. It raises RefusedError where it may not, OSError for this time.

        `warn` is told once when it is refused, and when it is not any more. `signs_of_life` says when training last
        gave one that is no event (Unix seconds).
        """
        self._pod = pod
        self._patch = patch
        self._warn = warn
        self._signs_of_life = signs_of_life
        self._every_seconds = every_seconds
        self._clock = clock
        self._wait = wait
        # events carry milliseconds
        self._began = round(clock(), 3)
        self._progress = progress.Progress(since=self._began, window=logging_steps)
        self._attempt = 0
        self._step: Event = {}
        self._trained: progress.View | None = None
        self._stored: int | None = None
        self._doing = ""
        self._trouble = ""
        self._alive: float | None = None
        self._end: Event | None = None
        self._is_news = False
        self._next_at = self._began
        self._told_at = self._began
        self._pause = 0.0

    def handle(self, event: Event) -> None:
        """Takes one event. What an earlier start of the run has logged counts, and is not told again."""
        self._take(event)
        if event.get("time", self._clock()) < self._began:
            return
        self._is_news = True
        # the trouble that storage has is told at once; to be refused again is not worth a hurry
        if event["event"] == "end" or (not self._pause and _is_urgent(event)):
            self._next_at = self._clock()
        self.idle()

    def idle(self) -> None:
        """Tells what is new when it is time to, and that this pod lives when nothing is."""
        if self._progress.view.phase == progress.NOT_BEGUN and self._end is None:
            # what an earlier start was busy with is not what this one does
            return
        now = self._clock()
        if now >= self._next_at and (self._is_news or now - self._told_at >= PROGRESS_EVERY_SECONDS):
            self._tell()

    def close(self, limit_seconds: float) -> None:
        """Tells what was not told yet: how the run ended is tried as often as there is time for."""
        deadline = time.monotonic() + limit_seconds
        while self._is_news and time.monotonic() < deadline:
            self._tell()
            if self._is_news:
                self._wait(min(_LAST_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def _take(self, event: Event) -> None:
        self._progress.take(event)
        kind, name = event["event"], event.get("name")
        is_new = event.get("time", self._clock()) >= self._began
        if kind == "step":
            self._step, self._trained = event, self._progress.view
        elif kind == "report" and name == "attempt":
            self._attempt, self._end = event["number"], None
        elif kind == "report" and name == "stored":
            self._stored = event["step"]
        elif kind == "report" and name == "storage" and is_new:
            self._trouble = str(event["trouble"])
        elif kind == "end" and is_new:
            self._end = event
        if kind in _OF_TRAINING and is_new:
            self._alive = event.get("time")
        if kind in ("phase", "step"):
            self._doing = ""
        elif (kind == "report" and name == "doing") or (name == "notice" and self._progress.view.phase != "train"):
            self._doing = str(event["message"])

    def _tell(self) -> None:
        now = self._clock()
        try:
            self._patch(self._now().dumps())
        except OSError as error:
            self._failed(error)
            return
        if self._pause:
            self._warn("the progress annotation is written again")
        self._is_news, self._pause = False, 0.0
        self._told_at, self._next_at = now, now + self._every_seconds

    def _failed(self, error: OSError) -> None:
        is_refused = isinstance(error, RefusedError)
        if is_refused and not self._pause:
            self._warn(f"cannot write the progress annotation, and tries again: {error}")
        if is_refused or self._pause:
            self._pause = min(max(2 * self._pause, self._every_seconds), LONGEST_PAUSE_SECONDS)
        self._next_at = self._clock() + max(self._pause, self._every_seconds)

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
            alive=_rounded(self._last_sign_of_life(), 3) if view.phase == "train" and not end else None,
            note="" if end else self._trouble or self._doing,
            exit_code=end.get("exit_code"),
            failure=end.get("class"),
            message=str(end.get("message") or ""),
            hint=str(end.get("hint") or ""),
        )

    def _last_sign_of_life(self) -> float:
        signs = (self._progress.view.began, self._alive, self._signs_of_life())
        return max(sign for sign in signs if sign is not None)


def _is_urgent(event: Event) -> bool:
    """Whether a person should know at once."""
    is_of_storage: bool = event["event"] == "report" and event.get("name") == "storage"
    return is_of_storage or bool(event["event"] == "phase")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _open(context: SinkContext) -> Sink | None:
    pod = context.environment.pod
    if context.output != "job" or pod is None:
        return None
    return ProgressAnnotation(
        pod.name,
        functools.partial(job_api.annotate_job, pod, PROGRESS_ANNOTATION),
        logging_steps=context.spec.train.logging_steps,
        warn=context.warn,
        signs_of_life=functools.partial(_touched, context.folder.alive),
    )


def _touched(path: Path) -> float | None:
    """When a file was last touched, Unix seconds."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


JOB_PROGRESS = SinkType(name=ProgressAnnotation.name, open=_open, shows_here=True)
