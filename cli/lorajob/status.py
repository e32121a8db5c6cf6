"""What state a run is in, from the objects that Kubernetes keeps of it: one RunStatus. Pure.

A Job's conditions and counters mislead at times: a resumed Job keeps the condition `Suspended` with status False, an
active pod may hang for hours before its container starts, and the progress annotation outlives the pod that wrote it.
So conditions are chosen by type and status, a pod counts as running when its container does, and progress counts as
current only while the pod that reported it lives.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lorajob import reasons
from lorajob.reasons import PodStatus, moment
from lorajob_runtime import pod as contract
from lorajob_runtime.exits import INTERRUPTED, STOPPED, SUCCEEDED
from lorajob_runtime.pod import LastWords, Progress
from lorajob_runtime.report.human import one_line
from lorajob_runtime.spec import API_VERSION

Object = Mapping[str, Any]

PHASES = (
    "Pending",
    "Suspended",
    "Downloading",
    "Preparing",
    "Training",
    "Publishing",
    "Succeeded",
    "Failed",
    "Cancelled",
)
RUNNING = frozenset({"Downloading", "Preparing", "Training", "Publishing"})
TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})

_OUTCOMES = {
    "Complete": "Succeeded",
    "SuccessCriteriaMet": "Succeeded",
    "Failed": "Failed",
    "FailureTarget": "Failed",
}
"""Condition -> phase. The second of each pair comes first, while pods are still being stopped: the end is certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """One run at one moment."""

    name: str
    namespace: str
    uid: str
    phase: str
    """One of PHASES."""
    reason: str
    """Why it is in this phase, one line; empty where the phase says all."""
    model: str
    data: str | None
    gpus: int
    """GPUs a node."""
    nodes: int
    queue: str | None
    created: datetime | None
    started: datetime | None
    """When the present stretch began: resuming sets it anew."""
    finished: datetime | None
    attempts: int
    """Attempts begun since the run was submitted or last retried, counting the present one."""
    retries: int
    """How many attempts may fail before the run has failed."""
    progress: Progress | None
    """The last report: of the pod that runs now, or how far a run came that does not run. None when out of date."""
    failure: LastWords | None
    """Of a failed run: why."""
    storage: str | None
    """Where its results are: `<uri>/<name>`."""
    image: str | None
    pods: tuple[PodStatus, ...] | None = None
    """None where nobody looked at them."""

    @property
    def is_terminal(self) -> bool:
        return self.phase in TERMINAL

    @property
    def is_running(self) -> bool:
        return self.phase in RUNNING


def from_job(job: Object, now: datetime) -> RunStatus:
    """What the Job alone says, as a LIST brings it."""
    return from_objects(job, None, (), now)


def from_objects(job: Object, pods: Sequence[Object] | None, events: Sequence[Object], now: datetime) -> RunStatus:
    """What the Job, its pods (None: unknown) and their events say together.

    `pods` are those of this Job, not of an earlier one of the same name; `events` those of the Job and the pods.
    """
    meta, spec, state = job["metadata"], job["spec"], job.get("status") or {}
    annotations = meta.get("annotations") or {}
    asked = _asked(spec)
    nodes = int(spec.get("completions") or spec.get("parallelism") or 1)
    retries = int(spec.get("backoffLimit", 0)) // nodes
    known = None if pods is None else reasons.read_pods(pods)
    failed_attempts = -(-_failed_pods(state, known) // nodes)
    report = contract.read_progress(annotations.get(contract.PROGRESS_ANNOTATION, ""))
    queue = (meta.get("labels") or {}).get(contract.QUEUE_LABEL)
    view = reasons.View(
        name=meta["name"],
        spec=spec,
        state=state,
        conditions=_conditions(state),
        nodes=nodes,
        failed_attempts=failed_attempts,
        retries=retries,
        queue=queue,
        pods=known,
        report=report,
        report_time=_written(meta, report),
        report_is_current=_is_current(meta, state, known, report),
        events=tuple(events),
        now=now,
    )
    cancelled = annotations.get(contract.CANCELLED_ANNOTATION)
    phase = _phase(view, cancelled)
    failure = reasons.failure(view) if phase == "Failed" else None
    is_shown = view.report_is_current or phase in TERMINAL or phase == "Suspended"
    storage = _value(asked, "storage", "uri")
    return RunStatus(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        phase=phase,
        reason=_reason(view, phase, failure, deleted=meta.get("deletionTimestamp") is not None),
        model=_value(asked, "model", "name") or (meta.get("labels") or {}).get(contract.MODEL_LABEL) or "",
        data=_value(asked, "data", "source"),
        gpus=_count(asked, "gpus"),
        nodes=nodes,
        queue=queue,
        created=moment(meta.get("creationTimestamp")),
        started=moment(state.get("startTime")),
        finished=_finished(phase, view, state, cancelled),
        attempts=_attempts(view, phase),
        retries=retries,
        progress=report if is_shown else None,
        failure=failure,
        storage=f"{storage.rstrip('/')}/{meta['name']}" if storage else None,
        image=reasons.container(spec["template"]).get("image"),
        pods=known,
    )


def to_dict(status: RunStatus) -> dict[str, Any]:
    """The JSON form of one run, apiVersion and kind included: docs/json.md and schemas/run.json describe it."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Run"}
    for item in dataclasses.fields(status):
        document[item.name] = _plain(getattr(status, item.name))
    document["progress"] = None if status.progress is None else _progress_dict(status.progress)
    document["failure"] = None if status.failure is None else _failure_dict(status.failure)
    if status.pods is None:
        del document["pods"]
    else:
        document["pods"] = [_pod_dict(each) for each in status.pods]
    return document


def list_to_dict(statuses: Sequence[RunStatus]) -> dict[str, Any]:
    """The JSON form of several runs; schemas/runlist.json describes it."""
    return {"apiVersion": API_VERSION, "kind": "RunList", "items": [to_dict(status) for status in statuses]}


def percent(progress: Progress) -> float | None:
    """Share of the optimizer steps that are done, from 0 to 100; None before their number is known."""
    return min(100.0, 100 * progress.step / progress.total_steps) if progress.total_steps else None


def _phase(view: reasons.View, cancelled: str | None) -> str:
    for condition, phase in _OUTCOMES.items():
        if condition in view.conditions:
            return phase
    if view.spec.get("suspend"):
        # a queue holds its runs suspended until their turn comes
        return "Cancelled" if cancelled else "Pending" if view.queue else "Suspended"
    if view.report is not None and view.report.exit_code == SUCCEEDED.code:
        # its pod is gone before the Job says so; nothing that comes after can undo it
        return "Publishing"
    report = view.report if view.report_is_current else None
    if report is not None and report.phase == "end":
        return "Pending"
    if report is not None:
        return contract.PHASES.get(report.phase, "Preparing")
    return "Preparing" if view.running == view.nodes else "Pending"


def _reason(view: reasons.View, phase: str, failure: LastWords | None, *, deleted: bool) -> str:
    if phase == "Failed" and failure is not None:
        text = f"{failure.failure}: {failure.message}"
    elif phase == "Pending":
        text = reasons.pending(view)
    else:
        text = reasons.present(view, phase)
    if deleted:
        text = f"is being deleted; {text}" if text else "is being deleted"
    return one_line(text, reasons.LONGEST) if text else ""


def _is_current(meta: Object, state: Object, pods: Sequence[PodStatus] | None, report: Progress | None) -> bool:
    """Whether the pod that wrote the report is one that still runs.

    Without the pods: the API server notes when the annotation and when the Job's status were written last. A pod that
    has reported since the last change among the Job's pods is one that lives. Both times are the server's own.
    """
    if report is None:
        return False
    if pods is not None:
        return any(each.name == report.pod and each.state == "Running" for each in pods)
    reported, changed = _written(meta, report), _status_changed(meta)
    began = moment(state.get("startTime"))
    if reported is None or not (state.get("ready") or state.get("active")):
        return False
    return all(reported >= other for other in (changed, began) if other is not None)


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


def _conditions(state: Object) -> dict[str, Object]:
    """Type -> condition of those that hold now."""
    return {each["type"]: each for each in state.get("conditions") or () if each.get("status") == "True"}


def _finished(phase: str, view: reasons.View, state: Object, cancelled: str | None) -> datetime | None:
    if phase == "Cancelled":
        return moment(cancelled)
    if phase not in TERMINAL:
        return None
    ends = [moment(view.conditions[each]["lastTransitionTime"]) for each in _OUTCOMES if each in view.conditions]
    return moment(state.get("completionTime")) or next(iter(ends), None)


def _failed_pods(state: Object, pods: Sequence[PodStatus] | None) -> int:
    """Pods whose failure counts, those too that the Job controller has not counted yet."""
    uncounted = (state.get("uncountedTerminatedPods") or {}).get("failed") or ()
    seen = [each for each in pods or () if each.last_words is not None and each.last_words.failure != reasons.EVICTED]
    return max(int(state.get("failed") or 0) + len(uncounted), len(seen))


def _attempts(view: reasons.View, phase: str) -> int:
    """Attempts begun: those that failed, and the one that runs, succeeded, or was stopped with the run.

    The Job counts no pod that a suspension stopped, though an attempt had begun: its report or the Job's start says so.
    """
    has_another = bool(view.state.get("active") or view.state.get("succeeded"))
    if view.spec.get("suspend"):
        has_another = has_another or _was_stopped(view)
    at_least = 0 if view.report is None else 1
    return max(at_least, view.failed_attempts + (1 if has_another and phase != "Failed" else 0))


def _was_stopped(view: reasons.View) -> bool:
    """Whether an attempt of a suspended Job was stopped, and not only waited for after one that failed."""
    if view.state.get("terminating"):
        return True
    report = view.report
    if report is None:
        has_begun = view.state.get("startTime") is not None or any(each.started for each in view.pods or ())
        return has_begun and view.failed_attempts == 0
    has_failed = report.exit_code not in (None, SUCCEEDED.code, STOPPED.code, INTERRUPTED.code)
    return not (has_failed and view.failed_attempts)


def _asked(spec: Object) -> Object:
    """The RunSpec on the pod template, as plain values: a list must not stumble over a spec that it need not know."""
    annotations = (spec["template"].get("metadata") or {}).get("annotations") or {}
    try:
        asked = json.loads(annotations.get(contract.SPEC_ANNOTATION, "{}"))
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def _value(asked: Object, section: str, field: str) -> str | None:
    group = asked.get(section)
    value = group.get(field) if isinstance(group, dict) else None
    if not isinstance(value, str):
        return None
    # a list does this thousands of times
    return value if value.isascii() and value.isprintable() else one_line(value)


def _count(asked: Object, field: str) -> int:
    group = asked.get("resources")
    value = group.get(field) if isinstance(group, dict) else None
    return value if isinstance(value, int) else 1


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _progress_dict(progress: Progress) -> dict[str, Any]:
    share = percent(progress)
    return {
        "pod": progress.pod,
        "attempt": progress.attempt,
        "time": _plain(datetime.fromtimestamp(progress.time, UTC)),
        "phase": progress.phase,
        "step": progress.step,
        "totalSteps": progress.total_steps,
        "percent": None if share is None else round(share, 1),
        "epoch": progress.epoch,
        "loss": progress.loss,
        "tokensPerSecond": progress.tokens_per_second,
        "secondsLeft": progress.seconds_left,
        "checkpoint": progress.checkpoint,
        "note": progress.note,
    }


def _failure_dict(words: LastWords) -> dict[str, Any]:
    return {"class": words.failure, "exitCode": words.exit_code, "message": words.message, "hint": words.hint}


def _pod_dict(each: PodStatus) -> dict[str, Any]:
    return {
        "name": each.name,
        "node": each.node,
        "state": each.state,
        "reason": each.reason,
        "host": each.host,
        "started": _plain(each.started),
        "finished": _plain(each.finished),
        "exitCode": each.exit_code,
    }
