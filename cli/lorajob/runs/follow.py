"""Follows a run until it ends or a time limit is over: watches its Job, and reads its pods after every change."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from lorajob.cluster import Cluster, Forbidden, NotFound, Unreachable, watching
from lorajob.errors import CANCELLED, FAILED, NOT_FINISHED, TIMED_OUT
from lorajob.runs import lookup
from lorajob.runs.lookup import Found
from lorajob.runs.patience import TRANSIENT_ERRORS, Patience
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.errors import SUCCEEDED, FailureClass, LorajobError
from lorajob_runtime.contract.kubernetes import RUN_LABEL
from lorajob_runtime.contract.text import duration

_LOOK_EVERY_SECONDS = 30.0
_LOOK_EVERY_SECONDS_PENDING = 3.0
"""What a pod waits for changes without a change of its Job."""
_REPLACED_WITHIN_SECONDS = 10.0
"""A retry deletes the Job and makes a new one of the same name."""
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
    when there is no such run or it is deleted meanwhile, TimedOutError after `timeout_seconds`, and a ClusterError at
    once when the cluster does not answer or allow it at first, later when that lasts (`lorajob.runs.patience`).
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    found = lookup.read(cluster, name)
    for note in found.notes:
        say(note)
    follower = _Follower(cluster, name, say)
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
        found = follower.next_look(found, left) or found


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


class _Follower:
    """Looks at a run after every change of its Job, whatever the cluster does in between."""

    def __init__(self, cluster: Cluster, name: str, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._name = name
        self._say = say
        self._patience = Patience(say)
        self._pauses = watching.pauses()
        self._may_watch = False

    def next_look(self, found: Found, left: float | None) -> Found | None:
        """The run after its next change, or when it is time to look again. None: nothing new in the time left."""
        deadline = None if left is None else time.monotonic() + left
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            is_watching = not self._patience.is_failing
            try:
                if is_watching:
                    self._wait_for_change(found, left)
                    self._may_watch, is_watching = True, False
                again = lookup.read(self._cluster, self._name)
            except NotFound:
                if not self._is_replaced(left):
                    raise NotFound(f"run {self._name} was deleted") from None
                continue
            except TRANSIENT_ERRORS as error:
                if is_watching and not self._may_watch and not isinstance(error, Unreachable):
                    # that was never allowed
                    raise
                pause = self._patience.pause_after(error)
            else:
                if again.status.pods is not None or found.status.pods is None:
                    self._patience.reset()
                    return again
                try:
                    pause = self._patience.pause_after(Forbidden("; ".join(again.notes)))
                except Forbidden:
                    # it may no longer see them: what the Job says is all there is from now on
                    return again
            if deadline is not None and time.monotonic() + pause > deadline:
                return None
            time.sleep(pause)

    def _wait_for_change(self, found: Found, left: float | None) -> None:
        seconds = _LOOK_EVERY_SECONDS_PENDING if found.status.phase == "Pending" else _LOOK_EVERY_SECONDS
        changes = self._cluster.watch(
            self._cluster.jobs(),
            timeout_seconds=seconds if left is None else min(seconds, left),
            pauses=self._pauses,
            fieldSelector=f"metadata.name={self._name}",
            resourceVersion=found.version,
        )
        next(changes, None)

    def _is_replaced(self, left: float | None) -> bool:
        seconds = _REPLACED_WITHIN_SECONDS if left is None else min(left, _REPLACED_WITHIN_SECONDS)
        selector = f"metadata.name={self._name}"
        changes = self._cluster.watch(
            self._cluster.jobs(),
            timeout_seconds=seconds,
            pauses=self._pauses,
            fieldSelector=selector,
            # a Job that is no run has not taken its place
            labelSelector=lookup.OF_LORAJOB,
        )
        return any(change["type"] in ("ADDED", "MODIFIED") for change in changes)


def _same(one: RunStatus, other: RunStatus) -> bool:
    """Whether nothing has changed that a person would see."""
    return dataclasses.replace(one, started=None) == dataclasses.replace(other, started=None)


def wait_until_gone(cluster: Cluster, name: str, uid: str, *, grace_seconds: float, then: str = "") -> None:
    """Waits for the end of a Job that is being deleted, and of its pods, which have `grace_seconds` to stop.

    `then` is a command that would wait again. Raises TimedOutError when they outlive that, and ClusterError.
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
    goes_on = f"; `{then}` waits again" if then else ""
    raise TimedOutError(
        f"the pods of run {name} have not stopped after {duration(limit)}",
        hint=f"`kubectl get pods -l {RUN_LABEL}={name} -n {cluster.namespace}` shows them{goes_on}",
    )
