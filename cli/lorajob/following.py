"""A run followed until it ends, or until it is enough: by a watch on its Job, and by looking at its pods anew."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from lorajob import runs
from lorajob.cluster import Cluster, NotFound, Unreachable
from lorajob.errors import CANCELLED, FAILED, NOT_FINISHED, TIMED_OUT
from lorajob.runs import Found
from lorajob.status import RunStatus
from lorajob_runtime.exits import SUCCEEDED, FailureClass, LorajobError
from lorajob_runtime.pod import RUN_LABEL
from lorajob_runtime.report.human import duration

PATIENCE_SECONDS = 300.0
"""So long a cluster may be out of reach before a command that follows gives up; the run does not care."""

_LOOK_EVERY_SECONDS = 30.0
_LOOK_EVERY_SECONDS_PENDING = 3.0
"""What a pod waits for changes without a change of its Job."""
_REPLACED_WITHIN_SECONDS = 10.0
"""A retry deletes the Job and makes a new one of the same name."""
_PAUSE_SECONDS = 1.0
_STOPPING_SECONDS = 60.0
"""Beyond the grace period of its pods a Job needs no longer to go."""
_GONE_LOOK_SECONDS = 0.5


class TimedOutError(LorajobError):
    """The time to wait is over, and the run is not."""

    failure: FailureClass = TIMED_OUT


def follow(
    cluster: Cluster,
    name: str,
    *,
    timeout_seconds: float | None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[RunStatus]:
    """The status of a run now and after every change, up to its end.

    `say` takes what a user should know beside it: what may not be looked at, an unreachable cluster. Raises NotFound
    when there is no such run or it is deleted meanwhile, TimedOutError after `timeout_seconds`, Unreachable when the
    cluster can't be reached at first, or for longer than PATIENCE_SECONDS later on.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    found = runs.read(cluster, name)
    for note in found.notes:
        say(note)
    shown: RunStatus | None = None
    while True:
        if shown is None or not _same(found.status, shown):
            shown = found.status
            yield shown
        if shown.is_terminal:
            return
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            waited = duration(timeout_seconds or 0)
            raise TimedOutError(f"run {name} has not ended within {waited}: it is {shown.phase}")
        found = _next(cluster, found, left, say) or found


def wait_for_end(
    cluster: Cluster,
    name: str,
    *,
    timeout_seconds: float | None,
    say: Callable[[str], None] = lambda _: None,
) -> RunStatus:
    """The status of a run at its end. Raises what `follow` raises."""
    *_, last = follow(cluster, name, timeout_seconds=timeout_seconds, say=say)
    return last


def exit_code_of(status: RunStatus) -> int:
    """0 succeeded, 100 failed, 103 cancelled, 101 not finished."""
    ends = {"Succeeded": SUCCEEDED, "Failed": FAILED, "Cancelled": CANCELLED}
    return ends.get(status.phase, NOT_FINISHED).code


def _next(cluster: Cluster, found: Found, left: float | None, say: Callable[[str], None]) -> Found | None:
    """The run after its next change, or when it is time to look again. None: nothing new in the time that is left."""
    name = found.status.name
    seconds = _LOOK_EVERY_SECONDS_PENDING if found.status.phase == "Pending" else _LOOK_EVERY_SECONDS
    lost_at: float | None = None
    while True:
        try:
            if lost_at is None:
                _wait_for_change(cluster, found, min(seconds, left) if left is not None else seconds)
            again = runs.read(cluster, name)
        except NotFound:
            if not _is_replaced(cluster, name, left):
                raise NotFound(f"run {name} was deleted") from None
        except Unreachable as error:
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                say(f"{error.message}; the run goes on, and this tries again")
            if now - lost_at > PATIENCE_SECONDS:
                raise
            if left is not None and now - lost_at > left:
                return None
            time.sleep(_PAUSE_SECONDS)
        else:
            if lost_at is not None:
                say("the cluster answers again")
            return again


def _wait_for_change(cluster: Cluster, found: Found, seconds: float) -> None:
    selector = f"metadata.name={found.status.name}"
    changes = cluster.watch(
        cluster.jobs(), timeout_seconds=seconds, fieldSelector=selector, resourceVersion=found.version
    )
    next(changes, None)


def _is_replaced(cluster: Cluster, name: str, left: float | None) -> bool:
    seconds = _REPLACED_WITHIN_SECONDS if left is None else min(left, _REPLACED_WITHIN_SECONDS)
    changes = cluster.watch(cluster.jobs(), timeout_seconds=seconds, fieldSelector=f"metadata.name={name}")
    return any(change["type"] in ("ADDED", "MODIFIED") for change in changes)


def _same(one: RunStatus, other: RunStatus) -> bool:
    """Whether nothing has changed that a person would see."""
    return dataclasses.replace(one, started=None) == dataclasses.replace(other, started=None)


def wait_until_gone(cluster: Cluster, name: str, uid: str, *, grace_seconds: float, then: str = "") -> None:
    """Waits for the end of a Job that is being deleted, and of its pods, which have `grace_seconds` to stop.

    `then` is a command that would go on waiting. Raises TimedOutError when they outlive that, and ClusterError.
    """
    limit = grace_seconds + _STOPPING_SECONDS
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            job = cluster.get(cluster.jobs(name))
        except NotFound:
            return
        # another run may have got the name meanwhile
        if job["metadata"]["uid"] != uid:
            return
        time.sleep(_GONE_LOOK_SECONDS)
    goes_on = f"; `{then}` goes on waiting" if then else ""
    raise TimedOutError(
        f"the pods of run {name} have not stopped after {duration(limit)}",
        hint=f"`kubectl get pods -l {RUN_LABEL}={name} -n {cluster.namespace}` shows them{goes_on}",
    )
