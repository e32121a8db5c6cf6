"""The event log of a run that goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from lorajob_runtime.contract.events import parse
from lorajob_runtime.contract.plain_files import read_plain
from lorajob_runtime.system import atomic


def cut_back(path: Path, step: int, *, evaluation_pending: bool = False) -> None:
    """Rewrites the log without what happened after `step`, atomically. A torn last line goes too.

    An event that has no step (phase, report, end) belongs to the last step before it; a checkpoint is written while
    later steps are made, and belongs to its own. `evaluation_pending`: the evaluation and the samples after `step` are
    made again, so theirs go too.
    """
    if not path.exists():
        return
    kept: list[bytes] = []
    is_past = False
    for line in read_plain(path).splitlines(keepends=True):
        event = parse(line) if line.endswith(b"\n") else None
        if event is None:
            continue
        is_past = is_past or event.get("step", 0) > step
        if is_past and not (event["event"] == "checkpoint" and event["step"] <= step):
            continue
        if evaluation_pending and event.get("step") == step and event["event"] in ("evaluation", "sample"):
            continue
        kept.append(line)
    atomic.replace_file(path, b"".join(kept))
