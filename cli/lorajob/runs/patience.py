"""How long a command that follows a run tolerates a cluster that can't be reached, or that refuses its requests.

An API server that has just started answers 401 and 403 until it has read its access rules; the run is not affected.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lorajob.cluster import ClusterError, Forbidden, Pauses, Unauthenticated, Unreachable

UNREACHABLE_SECONDS = 300.0
"""How long a cluster may be unreachable before a command that follows a run gives up; the run is not affected."""

REFUSED_SECONDS = 30.0
"""How long it may refuse what it allowed before; after that the refusal is taken as lasting."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0

TRANSIENT_ERRORS = (Unreachable, Forbidden, Unauthenticated)
"""Errors that may pass, where the same request was answered before."""


class Patience:
    """Tolerates errors while a run is followed, each kind for a limited time."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` takes one line when trouble begins and one when it is over."""
        self._say = say
        self._since: dict[bool, float] = {}
        self._pauses = Pauses(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)

    @property
    def is_failing(self) -> bool:
        """Whether there was an error since the last success."""
        return bool(self._since)

    def pause_after(self, error: ClusterError) -> float:
        """The seconds to pause before the next try. Raises the error when this has lasted for too long."""
        now = time.monotonic()
        is_away = isinstance(error, Unreachable)
        if not self._since:
            self._say(f"{error.message}; the run is not affected, and this command tries again")
        since = self._since.setdefault(is_away, now)
        if now - since > (UNREACHABLE_SECONDS if is_away else REFUSED_SECONDS):
            raise error
        return self._pauses.take()

    def reset(self) -> None:
        """To be called after a success: the next error starts its time limit again."""
        if self._since:
            self._say("the cluster answers again")
            self._since.clear()
            self._pauses.reset()
