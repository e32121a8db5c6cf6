"""What one training gave, whether two trained the same, and the table of all sides. Values to values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

STEP_TOLERANCE = 0.01
MEAN_TOLERANCE = 0.002
"""By how much losses may differ, as shares: of one step, and of all steps' mean.

Rows, order and arithmetic are the same, draws of dropout and the order of sums in bf16 are not: docs/benchmarks.md has
what these two make of a loss, and what faults make of it that this is to find.
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training: real tokens a second after the first step, that step's seconds, each step's loss, peak memory."""

    tokens_per_second: float
    first_step_seconds: float
    losses: list[float]
    memory_bytes: int
    processor_seconds: float = 0.0
    """Of the whole training, start and loading included: other programs change it less than the clock."""
    load: float = 0.0
    """The machine's load average at its end."""
    versions: dict[str, str] = field(default_factory=dict)


def measure(
    tokens: Sequence[int], seconds: Sequence[float], losses: Sequence[float], memory_bytes: int, **more: Any
) -> Measured:
    """`tokens` and `seconds` are those of each step; the first one's are not in the speed where there are more."""
    warm = slice(1, None) if len(seconds) > 1 else slice(None)
    return Measured(
        tokens_per_second=sum(tokens[warm]) / sum(seconds[warm]),
        first_step_seconds=seconds[0],
        losses=list(losses),
        memory_bytes=memory_bytes,
        **more,
    )


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A side that did not train to its end, and why."""

    reason: str


Outcome = Measured | Failed


def difference(losses: Sequence[float], reference: Sequence[float]) -> str | None:
    """In which way a side's losses are not the reference's; None where they are equal within the tolerances."""
    if len(losses) != len(reference):
        return f"{len(losses)} steps have a loss, and {len(reference)} of the reference"
    for step, (mine, other) in enumerate(zip(losses, reference, strict=True), start=1):
        # also where one is not a number
        if not abs(mine - other) <= STEP_TOLERANCE * abs(other):
            return f"the loss of step {step} is {mine:.4f}, and {other:.4f} of the reference"
    mine, other = statistics.fmean(losses), statistics.fmean(reference)
    if not abs(mine - other) <= MEAN_TOLERANCE * abs(other):
        return f"the mean loss is {mine:.4f}, and {other:.4f} of the reference"
    return None


def refused(sides: Mapping[str, Sequence[Outcome]], reference: str) -> dict[str, str]:
    """The sides that get no speed, and why: one of their trainings failed, or its losses are not the reference's."""
    (first, *_) = sides[reference]
    if isinstance(first, Failed):
        return dict.fromkeys(sides, f"{reference}, which the others are held against, did not train: {first.reason}")
    found = {}
    for name, rounds in sides.items():
        for outcome in rounds:
            reason = outcome.reason if isinstance(outcome, Failed) else difference(outcome.losses, first.losses)
            if reason is not None:
                found[name] = reason
                break
    return found


def table(sides: Mapping[str, Sequence[Outcome]], reference: str) -> str:
    """The Markdown table, then lorajob's ratio to each side, and why a side has no speed.

    Figures are medians over the rounds, a ratio the median of the rounds' ratios; memory is the most of any round.
    """
    without = refused(sides, reference)
    lines = [
        "| | tokens/s | first step s | mean loss | peak memory MiB | processor's s |",
        "|---|---|---|---|---|---|",
        *(_row(name, rounds, name in without) for name, rounds in sides.items()),
        "",
    ]
    ours = [] if "lorajob" in without else list(sides.get("lorajob", []))
    for name, rounds in sides.items():
        if ours and name != "lorajob" and name not in without:
            ratios = [a.tokens_per_second / b.tokens_per_second for a, b in zip(ours, rounds, strict=True)]  # type: ignore[union-attr]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"lorajob / {name}: {statistics.median(ratios):.2f}x (rounds: {each})")
    lines += [f"{name} has no speed: {reason}" for name, reason in without.items()]
    return "\n".join(lines)


def _row(name: str, rounds: Sequence[Outcome], is_refused: bool) -> str:
    done = [each for each in rounds if isinstance(each, Measured)]
    if not done:
        return f"| {name} | - | - | - | - | - |"
    loss = statistics.fmean(done[0].losses)
    if is_refused:
        return f"| {name} | - | - | {loss:.4f} | - | - |"
    return (
        f"| {name} | {statistics.median(each.tokens_per_second for each in done):.0f} "
        f"| {statistics.median(each.first_step_seconds for each in done):.1f} | {loss:.4f} "
        f"| {max(each.memory_bytes for each in done) / 2**20:.0f} "
        f"| {statistics.median(each.processor_seconds for each in done):.0f} |"
    )


def as_json(sides: Mapping[str, Sequence[Outcome]], reference: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the table was made of, `about` the run beside it. A side that is refused keeps no speed here."""
    without = refused(sides, reference)
    rounds = {name: [asdict(each) for each in outcomes] for name, outcomes in sides.items()}
    for name in without:
        for each in rounds[name]:
            each.pop("tokens_per_second", None)
            each.pop("first_step_seconds", None)
    return {**about, "reference": reference, "sides": rounds, "without_speed": without}
