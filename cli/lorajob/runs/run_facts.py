"""The facts about a run that its phase and reason are decided by, gathered from its Job, pods and events. Pure.

A Job's conditions and counters mislead at times: a resumed Job keeps the condition `Suspended` with status False, an
active pod may hang for hours before its container starts, the progress annotation outlives the pod that wrote it, and a
pod whose node is lost is called running. So conditions are chosen by type and status, a pod counts as running when its
container can be seen to, and a report counts as current only while the pod that wrote it runs and goes on reporting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lorajob.runs import pod_states, pod_status
from lorajob.runs.pod_status import PodStatus, moment
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.errors import INTERRUPTED, STOPPED, SUCCEEDED
from lorajob_runtime.contract.kubernetes import Progress

Object = Mapping[str, Any]

_FRESH_FOR = timedelta(seconds=3 * contract.PROGRESS_EVERY_SECONDS)
"""A pod that lives reports at least three times as often."""
_FRESH_STEPS = 4
"""Training that takes long for a step may be silent for so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What is known of a run when its phase and reason are decided."""

    name: str
    spec: Object
    state: Object
    conditions: Mapping[str, Object]
    """Type -> condition of those that hold now."""
    nodes: int
    retries: int
    queue: str | None
    queue_words: str
    """Why it is not its turn yet, in the queue's own words; empty where they are not known."""
    pods: tuple[PodStatus, ...] | None
    """None where nobody looked at them."""
    report: Progress | None
    report_time: datetime | None
    changed: datetime | None
    """When the Job's controller last saw a change among its pods."""
    events: tuple[Object, ...]
    now: datetime

    @property
    def newest_pods(self) -> tuple[PodStatus, ...]:
        """The newest pod of each node that has one."""
        return pod_status.newest(self.pods or ())

    @property
    def running(self) -> int:
        """Nodes whose pod can be seen to run."""
        if self.pods is None:
            return min(self.nodes, int(self.state.get("ready") or 0))
        return sum(each.runs for each in self.newest_pods)

    @property
    def has_pods(self) -> bool:
        """Whether pods are there that have not ended, by the Job's counters."""
        return bool(self.state.get("active") or self.state.get("terminating"))

    @property
    def has_succeeded(self) -> bool:
        """Whether it has done all it had to, which nothing that comes after can undo. Its Job may not say so yet."""
        if self.report is not None and self.report.exit_code == SUCCEEDED.code:
            return True
        return len(self.newest_pods) == self.nodes and all(each.state == "Succeeded" for each in self.newest_pods)

    @property
    def current(self) -> Progress | None:
        """The report, if the pod that wrote it is one that runs.

        Without the pods: the API server notes when the annotation and when the Job's status were written last. A pod
        that has reported since the last change among the Job's pods is one that lives. Both times are the server's own.
        """
        if self.report is None:
            return None
        if self.pods is not None:
            is_current = any(each.name == self.report.pod and each.runs for each in self.newest_pods)
        else:
            began = moment(self.state.get("startTime"))
            is_current = (
                self.report_time is not None
                and bool(self.state.get("ready") or self.state.get("active"))
                and all(self.report_time >= other for other in (self.changed, began) if other is not None)
            )
        return self.report if is_current else None

    @property
    def silence(self) -> timedelta | None:
        """How long the pod with the current report has said nothing, if that is too long."""
        if self.current is None or self.report_time is None:
            return None
        return _too_long(self.now - self.report_time, self.current)

    @property
    def standstill(self) -> timedelta | None:
        """How long training has given no sign of life by the current report, if that is too long."""
        report = self.current
        if report is None or report.alive is None or report.phase != "train" or self.report_time is None:
            return None
        return _too_long(self.now - self.report_time + timedelta(seconds=report.time - report.alive), report)

    @property
    def is_progressing(self) -> bool:
        """Whether it reported a short while ago, and has not finished."""
        return self.current is not None and not (self.silence or self.standstill or self.has_succeeded)

    @property
    def failed(self) -> int:
        """Pods whose failure counts against the Job's limit by its own rules, also where it has not counted yet."""
        waiting = set((self.state.get("uncountedTerminatedPods") or {}).get("failed") or ())
        seen = [each for each in self.pods or () if each.counts]
        waiting |= {each.uid for each in seen if each.is_uncounted}
        # what is there and failed has been counted, or will be
        return max(int(self.state.get("failed") or 0) + len(waiting), len(seen))

    @property
    def attempts(self) -> int:
        """Attempts begun, as the Job counts: those that failed, and the one that runs, succeeded or was stopped."""
        begun = self.failed + (1 if self._has_another else 0)
        return min(max(begun, 1 if self.has_begun else 0), self.retries + 1)

    @property
    def _has_another(self) -> bool:
        if self.state.get("succeeded") or self.has_succeeded:
            return True
        if self.conditions.keys() & {"Failed", "FailureTarget"}:
            return False
        if self.spec.get("suspend"):
            return bool(self.state.get("active")) or self._was_stopped
        if self.pods is not None:
            is_there = any(each.state != "Failed" for each in self.newest_pods)
            # one that was only interrupted is still the attempt that it was
            return is_there or any(each.state == "Failed" and not each.counts for each in self.newest_pods)
        return self.has_pods or (self.report is not None and not self.failed)

    @property
    def _was_stopped(self) -> bool:
        """Whether an attempt of a suspended Job was stopped, and not only waited for after one that failed."""
        if self.state.get("terminating"):
            return True
        report = self.report
        if report is None:
            has_begun = self.state.get("startTime") is not None or any(each.started for each in self.pods or ())
            return has_begun and self.failed == 0
        has_failed = report.exit_code not in (None, SUCCEEDED.code, STOPPED.code, INTERRUPTED.code)
        return not (has_failed and self.failed)

    @property
    def has_begun(self) -> bool:
        """Whether a container of it has run at all."""
        counters = ("ready", "succeeded", "failed")
        if self.report is not None or any(self.state.get(each) for each in counters):
            return True
        return (self._has_another and bool(self.spec.get("suspend"))) or any(each.started for each in self.pods or ())

    def shown(self, *, is_over: bool) -> Progress | None:
        """The report as it is to be shown; of one that is out of date what it expected is left out, None if all is."""
        if self.report is None or (self.current is None and not is_over):
            return None
        if not is_over and (self.silence or self.standstill):
            return dataclasses.replace(self.report, tokens_per_second=None, seconds_left=None)
        return self.report


def gather(
    job: Object,
    pods: Sequence[Object] | None,
    events: Sequence[Object],
    now: datetime,
    *,
    nodes: int,
    queue: str | None,
    queue_words: str,
) -> RunFacts:
    """What a Job, its pods (None: unknown) and their events say together."""
    meta, spec, state = job["metadata"], job["spec"], job.get("status") or {}
    report = contract.read_progress((meta.get("annotations") or {}).get(contract.PROGRESS_ANNOTATION, ""))
    return RunFacts(
        name=meta["name"],
        spec=spec,
        state=state,
        conditions={each["type"]: each for each in state.get("conditions") or () if each.get("status") == "True"},
        nodes=nodes,
        retries=int(spec.get("backoffLimit", 0)),
        queue=queue,
        queue_words=queue_words,
        pods=None if pods is None else pod_states.read_pods(pods, spec),
        report=report,
        report_time=_written(meta, report),
        changed=_status_changed(meta),
        events=tuple(events),
        now=now,
    )


def _too_long(silent: timedelta, report: Progress) -> timedelta | None:
    limit = _FRESH_FOR
    if report.seconds_left and report.total_steps and report.total_steps > report.step:
        limit = max(limit, _FRESH_STEPS * timedelta(seconds=report.seconds_left / (report.total_steps - report.step)))
    return silent if silent > limit else None


def _written(meta: Object, report: Progress | None) -> datetime | None:
    """When the report was written, by the API server's clock if it says so."""
    key = f"f:{contract.PROGRESS_ANNOTATION}"
    for entry in meta.get("managedFields") or ():
        fields = entry.get("fieldsV1") or {}
        if key in ((fields.get("f:metadata") or {}).get("f:annotations") or {}):
            return moment(entry.get("time"))
    return None if report is None else datetime.fromtimestamp(report.time, UTC).replace(microsecond=0)


def _status_changed(meta: Object) -> datetime | None:
    times = [
        moment(entry.get("time")) for entry in meta.get("managedFields") or () if entry.get("subresource") == "status"
    ]
    return max((each for each in times if each is not None), default=None)
