"""Computes from its events how far a run is: phase, step, loss, speed, time left. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.text import duration, short_count

NOT_BEGUN = "start"
"""The phase before the first one of this start of the run."""

_TIMED_STEPS = 20
_BAR_LEAST_WIDTH = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is shown of a moment. `total` None: the phase has no steps to count."""

    phase: str
    began: float
    step: int = 0
    total: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None

    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    def parts(self) -> dict[str, str]:
        """Percent, count of steps, loss, speed and time left, as far as known, in the order in which they are shown."""
        if not self.total:
            return {}
        found = {"percent": f"{100 * self.share():.0f}%", "count": f"{self.step}/{self.total}"}
        if self.loss is not None:
            found["loss"] = f"loss {self.loss:.4f}"
        if self.tokens_per_second is not None:
            found["speed"] = f"{short_count(self.tokens_per_second)} tokens/s"
        if self.seconds_left is not None and self.step < self.total:
            found["left"] = f"ETA {duration(self.seconds_left)}"
        return found


class Progress:
    """Follows a run. Loss and speed are means of the last `window` steps: single ones jump.

    What was logged before `since` (Unix seconds) counts for the loss, not for the time left, nor for the phase.
    """

    def __init__(self, *, since: float, window: int = 10) -> None:
        self._since = since
        self._phase = NOT_BEGUN
        self._began = since
        self._step: Event | None = None
        self._times: deque[tuple[int, float]] = deque(maxlen=_TIMED_STEPS)
        self._losses: deque[float] = deque(maxlen=window)
        self._speeds: deque[float] = deque(maxlen=window)

    def take(self, event: Event) -> None:
        """Takes one event, in order."""
        if event["event"] == "phase":
            if event["time"] >= self._since:
                self._phase = event["name"]
                self._began = event["time"]
        elif event["event"] == "step":
            self._step = event
            self._losses.append(event["loss"])
            if event.get("tokens_per_second"):
                self._speeds.append(event["tokens_per_second"])
            if event["time"] >= self._since:
                self._times.append((event["step"], event["time"]))

    @property
    def view(self) -> View:
        """The present state."""
        if self._phase != "train" or self._step is None:
            return View(phase=self._phase, began=self._began)
        return View(
            phase=self._phase,
            began=self._began,
            step=self._step["step"],
            total=self._step.get("total_steps"),
            loss=sum(self._losses) / len(self._losses),
            tokens_per_second=sum(self._speeds) / len(self._speeds) if self._speeds else None,
            seconds_left=self._seconds_left(self._step),
        )

    def _seconds_left(self, step: Event) -> float | None:
        if len(self._times) < 2 or not step.get("total_steps"):
            return None
        (first, began), (last, ended) = self._times[0], self._times[-1]
        steps_left: int = step["total_steps"] - step["step"]
        return steps_left * (ended - began) / max(1, last - first)


def bar(view: View, width: int, *, now: float, ascii_only: bool) -> tuple[str, str, str]:
    """(text before, the part done, the rest and the text after) of one line of at most `width` cells.

    What does not fit is left out: speed first, then loss, then the count of steps, then the time left.
    """
    parts = view.parts()
    if not parts:
        return f"{view.phase} {duration(now - view.began)}"[:width], "", ""
    for least in (None, "speed", "loss", "count", "left"):
        parts.pop(least or "", None)
        said = "  ".join(parts.values())
        room = width - len(view.phase) - len(said) - 3
        if room >= _BAR_LEAST_WIDTH:
            done = round(room * view.share())
            filled, empty = ("#", "-") if ascii_only else ("━", "─")
            return f"{view.phase} ", filled * done, f"{empty * (room - done)}  {said}"
    return f"{view.phase} {parts['percent']}"[:width], "", ""
