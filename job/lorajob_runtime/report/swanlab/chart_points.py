"""Turns events into what is charted: values and texts as the tutorials log them, at the same steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lorajob_runtime.contract.events import Event

Kind = Literal["train", "eval", "samples"]
"""Kinds are told apart because one step has a point of each, and a run can end between them."""

_BYTES_PER_GIB = 2**30
_CAPTION_LENGTH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One text of a point, and the short title under which it is shown."""

    text: str
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What is logged at one step: numbers by their key, or the answers to the sample prompts."""

    kind: Kind
    step: int
    values: dict[str, float] = field(default_factory=dict)
    texts: tuple[Text, ...] = ()


class Points:
    """Turns a run's events, in order and from the first one on, into points.

    As transformers.Trainer does, every `logging_steps` steps the mean loss since the last point, with the gradient
    norm, learning rate and epoch of that step. The last step makes a point too, so that no run is without one.
    """

    def __init__(self, logging_steps: int) -> None:
        self._logging_steps = logging_steps
        self._window: list[Event] = []
        self._samples: list[Event] = []
        self._made: dict[Kind, int] = {}

    def take(self, event: Event) -> list[Point]:
        """The points that this event completes. A step's samples are complete when something else follows them.

        Not a checkpoint, which is written meanwhile.
        """
        kind = event["event"]
        if kind == "checkpoint":
            return []
        made = []
        if self._samples and not (kind == "sample" and event["step"] == self._samples[0]["step"]):
            if kind != "end" or event.get("exit_code") == 0:
                made.append(_samples_point(self._samples))
            self._samples = []
        if kind == "sample":
            self._samples.append(event)
        elif kind == "step":
            self._window.append(event)
            if event["step"] % self._logging_steps == 0 or event["step"] == event.get("total_steps"):
                made.append(_train_point(self._window))
                self._window = []
        elif kind == "evaluation":
            made.append(_evaluation_point(event))
        return [point for point in made if self._is_new(point)]

    def _is_new(self, point: Point) -> bool:
        """A run killed before its first checkpoint begins again, and reports its step 0 again."""
        if point.step <= self._made.get(point.kind, -1):
            return False
        self._made[point.kind] = point.step
        return True


def _train_point(window: list[Event]) -> Point:
    last = window[-1]
    values = {"train/loss": sum(event["loss"] for event in window) / len(window)}
    values |= _present(last, {"train/grad_norm": "grad_norm", "train/learning_rate": "learning_rate"})
    values |= _present(last, {"train/epoch": "epoch"})
    timed = [event for event in window if event.get("tokens") and event.get("tokens_per_second")]
    if timed:
        seconds = sum(event["tokens"] / event["tokens_per_second"] for event in timed)
        values["train/tokens_per_second"] = sum(event["tokens"] for event in timed) / seconds
    if last.get("memory_bytes"):
        values["train/memory_gib"] = last["memory_bytes"] / _BYTES_PER_GIB
    return Point(kind="train", step=last["step"], values=values)


def _evaluation_point(event: Event) -> Point:
    values = _present(event, {"eval/loss": "loss", "eval/perplexity": "perplexity"})
    return Point(kind="eval", step=event["step"], values=values)


def _samples_point(samples: list[Event]) -> Point:
    """Question and answer, and after training began what the data says: as the law tutorial logs `Prediction`."""
    ordered = sorted(samples, key=lambda event: int(event.get("index", 0)))
    return Point(kind="samples", step=ordered[0]["step"], texts=tuple(_text(event) for event in ordered))


def _text(event: Event) -> Text:
    parts = [f"【Q】{event['prompt']}", f"【LLM】{event['output']}"]
    if event["step"] > 0 and event.get("reference"):
        parts.append(f"【GT】{event['reference']}")
    return Text(text="\n\n".join(parts), caption=" ".join(str(event["prompt"]).split())[:_CAPTION_LENGTH])


def _present(event: Event, names: dict[str, str]) -> dict[str, float]:
    found: dict[str, Any] = {key: event.get(name) for key, name in names.items()}
    return {key: float(value) for key, value in found.items() if value is not None}
