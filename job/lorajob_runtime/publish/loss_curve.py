"""The loss curve as a picture: every step faint, a smoothed line over it, evaluations as points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Points = Sequence[tuple[int, float]]

_SPAN_SHARE = 20
"""The smoothed line looks back over about a twentieth of the steps."""


def draw(losses: Points, evaluations: Points, path: Path, *, title: str) -> None:
    """Writes a PNG of 1200 x 675 points. Imports matplotlib, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [step for step, _ in losses]
    axes.plot(steps, [loss for _, loss in losses], color="#9db7d5", linewidth=0.8, label="each step")
    axes.plot(steps, smooth([loss for _, loss in losses]), color="#1f4e8c", linewidth=2, label="smoothed")
    if evaluations:
        at, values = zip(*evaluations, strict=True)
        axes.plot(
            at, values, color="#c0392b", marker="o", markersize=5, linestyle="--", linewidth=1, label="evaluation"
        )
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, color="#e5e5e5")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def smooth(values: Sequence[float]) -> list[float]:
    """An exponential mean without the pull towards its start (as Adam corrects its moments)."""
    keep = 1 - 1 / max(1, len(values) // _SPAN_SHARE)
    mean, weight = 0.0, 0.0
    smoothed = []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed
