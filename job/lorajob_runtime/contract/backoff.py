"""How long to pause before the same is asked again: longer each time, and never by several clients at one moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_LEAST_SHARE = 0.5


class Pauses:
    """Pauses that double from `first_seconds` to `longest_seconds`, each cut by up to half of it at random.

    The one law of every repeated request. After a restart of the server all clients lose it at the same moment;
    by chance they do not come back at the same one.
    """

    def __init__(self, *, first_seconds: float, longest_seconds: float, rng: random.Random | None = None) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._next = first_seconds
        self._rng = rng or random.SystemRandom()

    def take(self) -> float:
        """The seconds to pause now; the next time it is longer."""
        seconds = self._next * self._rng.uniform(_LEAST_SHARE, 1)
        self._next = min(2 * self._next, self._longest)
        return seconds

    def reset(self) -> None:
        """Begins again with the first: what was asked went well for a while."""
        self._next = self._first


def wait(seconds: float, deadline: float | None, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Pauses, unless that would reach the deadline (of time.monotonic(); None: no end); returns whether it did."""
    if deadline is not None and time.monotonic() + seconds >= deadline:
        return False
    sleep(seconds)
    return True
