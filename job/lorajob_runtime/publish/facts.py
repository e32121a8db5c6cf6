"""What a run's own records say about it, gathered for the model card. Pure."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lorajob_runtime import __version__
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models.provenance import BaseModelOrigin

_LAST_STEPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One prompt answered before training and after it."""

    prompt: str
    before: str | None
    after: str
    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """Everything a model card says. `losses` and `evaluations` are (step, loss); `data` is the data report.

    `fp8`: the base's published weights are in FP8.
    """

    spec: RunSpec
    base: BaseModelOrigin
    data: dict[str, Any]
    losses: tuple[tuple[int, float], ...] = ()
    evaluations: tuple[tuple[int, float], ...] = ()
    samples: tuple[Sample, ...] = ()
    targets: dict[str, Any] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    thinking_switch: bool = False
    fp8: bool = False
    ends: tuple[int, ...] = ()
    """The tokens that end an answer, where the base by itself does not stop at one of them."""

    @property
    def loss_before(self) -> float | None:
        """Loss of the first step: it was taken before any weight had changed."""
        return self.losses[0][1] if self.losses else None

    @property
    def loss_after(self) -> float | None:
        """Mean loss of the last steps; one step alone says little."""
        last = [loss for _, loss in self.losses[-_LAST_STEPS:]]
        return sum(last) / len(last) if last else None


def gather(
    events: Iterable[Event],
    *,
    spec: RunSpec,
    base: BaseModelOrigin,
    data: dict[str, Any],
    versions: dict[str, str],
    thinking_switch: bool,
    fp8: bool = False,
    ends: tuple[int, ...] = (),
) -> RunFacts:
    """The facts in a run's events."""
    losses: dict[int, float] = {}
    evaluations: dict[int, float] = {}
    samples: list[Event] = []
    reports: dict[str, dict[str, Any]] = {}
    tokens = 0
    for event in events:
        if event["event"] == "step":
            losses[event["step"]] = event["loss"]
            tokens += event["tokens"]
        elif event["event"] == "evaluation":
            evaluations[event["step"]] = event["loss"]
        elif event["event"] == "sample":
            samples.append(event)
        elif event["event"] == "report":
            reports[event["name"]] = event
    return RunFacts(
        spec=spec,
        base=base,
        data=data,
        losses=tuple(sorted(losses.items())),
        evaluations=tuple(sorted(evaluations.items())),
        samples=tuple(_before_and_after(samples)),
        targets=reports.get("targets", {}).get("targets", {}),
        decided=reports.get("decided", {}),
        versions=versions,
        tokens=tokens,
        thinking_switch=thinking_switch,
        fp8=fp8,
        ends=ends,
    )


def installed_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"lorajob": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "accelerate"):
        found[name] = importlib.metadata.version(name)
    return found


def _before_and_after(samples: list[Event]) -> list[Sample]:
    if not samples:
        return []
    last = max(event["step"] for event in samples)
    before = {event["index"]: event["output"] for event in samples if event["step"] == 0}
    after = {event["index"]: event for event in samples if event["step"] == last}
    return [
        Sample(
            prompt=event["prompt"],
            before=before.get(index) if last > 0 else None,
            after=event["output"],
            reference=event["reference"],
        )
        for index, event in sorted(after.items())
    ]
