"""The result of a run in a few numbers, from its events: the loss at its beginning and at its end. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


@dataclass(slots=True)
class Summary:
    """A sink that keeps the few numbers worth printing at the end of a run."""

    name: str = "summary"
    losses: dict[int, float] = field(default_factory=dict)
    evaluations: dict[int, float] = field(default_factory=dict)

    def handle(self, event: Event) -> None:
        """Takes one event of the log."""
        kind = event.get("event")
        if kind == "step":
            self.losses[event["step"]] = event["loss"]
        elif kind == "evaluation":
            self.evaluations[event["step"]] = event["loss"]

    def close(self, limit_seconds: float) -> None:
        """Nothing to finish."""

    def loss_line(self) -> str:
        """`loss 3.41 -> 1.02 (step 1 -> 75)`, with the held-out rows' where there are any; empty before any step."""
        parts = []
        for title, values in (("loss", self.losses), ("evaluation loss", self.evaluations)):
            if len(values) >= 2:
                first, last = min(values), max(values)
                parts.append(f"{title} {values[first]:.4f} -> {values[last]:.4f} (step {first} -> {last})")
        return ", ".join(parts)


def location(uri: str, name: str) -> str:
    """Where the adapter of a run is: `<uri>/<name>/adapter`."""
    return f"{uri.rstrip('/')}/{name}/adapter"
