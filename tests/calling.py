"""What tests of the command line call it with: `lorajob("run", "--dry-run")` gives its exit code and output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a call of `lorajob` came to."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]
