"""What one who follows a run bears of its cluster: that it is out of reach, and that it refuses for a moment.

An API server that has just started answers 401 and 403 until it has read who may do what; the run goes on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lorajob.cluster import ClusterError, Forbidden, Pauses, Unauthenticated, Unreachable

UNREACHABLE_SECONDS = 300.0
"""So long a cluster may be out of reach before a command that follows gives up; the run does not care."""

REFUSED_SECONDS = 30.0
"""So long it may refuse what it has allowed before; then it means it."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0

PASSING = (Unreachable, Forbidden, Unauthenticated)
"""Errors that may be over in a moment, where the same request was answered before."""


class Patience:
    """Bears what goes wrong while something is followed, each kind within its limit."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` takes one line when trouble begins and one when it is over."""
        self._say = say
        self._since: dict[bool, float] = {}
        self._pauses = Pauses(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)

    @property
    def is_tried(self) -> bool:
        """Whether something has gone wrong since it last went well."""
        return bool(self._since)

    def bear(self, error: ClusterError) -> float:
        """The seconds to pause before the next try. Raises the error when this has lasted for too long."""
        now = time.monotonic()
        is_away = isinstance(error, Unreachable)
        if not self._since:
            self._say(f"{error.message}; the run is not affected, and this command tries again")
        since = self._since.setdefault(is_away, now)
        if now - since > (UNREACHABLE_SECONDS if is_away else REFUSED_SECONDS):
            raise error
        return self._pauses.take()

    def went_well(self) -> None:
        """What was asked has been answered: whatever comes is new trouble."""
        if self._since:
            self._say("the cluster answers again")
            self._since.clear()
            self._pauses.reset()
