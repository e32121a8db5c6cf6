"""When a checkpoint is due."""

from __future__ import annotations


def is_due(step: int, *, every: int, total: int, stopping: bool) -> bool:
    """Whether a checkpoint follows step `step` of `total`: each `every` steps, after the last one, and before a stop.

    It comes before the evaluation that may be due too, which takes time; the checkpoint says that this is pending. An
    evaluation that is cut short by a stop gives a checkpoint after any step.
    """
    return step % every == 0 or step == total or stopping
