"""Keeps what the SwanLab sink remembers across restarts: the run's id at SwanLab, and the last steps that it has."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.plain_files import NotPlainError, read_plain
from lorajob_runtime.report.swanlab.chart_points import Point
from lorajob_runtime.system import atomic

_ID_LENGTH = 21
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_KEY = "swanlab"


@dataclass(slots=True)
class SwanLabState:
    """`sent`: kind of point -> the last step of it that the server has; what only lies on this disk does not count."""

    path: Path
    id: str
    sent: dict[str, int] = field(default_factory=dict)

    def has(self, point: Point) -> bool:
        """Whether the server has this point already."""
        return point.step <= self.sent.get(point.kind, -1)

    def confirm(self, point: Point) -> None:
        """From now on the server has this point, and all before it of its kind."""
        self.sent[point.kind] = max(point.step, self.sent.get(point.kind, -1))

    def save(self) -> None:
        """Writes it down, atomically."""
        content = _read(self.path) | {_KEY: {"id": self.id, "sent": self.sent}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace_file(self.path, json.dumps(content, indent=2) + "\n")


def load(path: Path, rng: random.Random) -> SwanLabState:
    """What was written down, else a new id, which is written down at once."""
    known = _read(path).get(_KEY)
    if isinstance(known, dict) and isinstance(known.get("id"), str):
        sent = {str(kind): int(step) for kind, step in dict(known.get("sent") or {}).items()}
        return SwanLabState(path=path, id=known["id"], sent=sent)
    state = SwanLabState(path=path, id="".join(rng.choices(_ID_LETTERS, k=_ID_LENGTH)))
    state.save()
    return state


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_plain(path))
    except (FileNotFoundError, ValueError, NotPlainError):
        return {}
    return content if isinstance(content, dict) else {}
