"""What state a run is in, from the objects that Kubernetes keeps of it: one RunStatus. Pure.

`list`, `status`, `watch`, `wait` and their JSON all have it from here; `list` has only the Jobs to tell it from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lorajob.runs import diagnosis, failures, pod_states, run_facts
from lorajob.runs.pod_states import PodStatus, moment
from lorajob.runs.run_facts import RunFacts
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.human import one_line
from lorajob_runtime.contract.kubernetes import LastWords, Progress

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


LONGEST = 400
"""Characters of a reason: what the API server and the container runtime say can be pages."""


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
    is_progressing: bool
    """Whether that is what it does now: reported a short while ago, by a pod that can be seen to run."""
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


def from_objects(
    job: Object, pods: Sequence[Object] | None, events: Sequence[Object], now: datetime, *, queue_words: str = ""
) -> RunStatus:
    """What the Job, its pods (None: unknown) and their events say together.

    `pods` are those of this Job, not of an earlier one of the same name; `events` those of the Job and the pods;
    `queue_words` is what the queue says of it.
    """
    meta, spec = job["metadata"], job["spec"]
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    asked = _asked(spec)
    nodes = int(spec.get("completions") or spec.get("parallelism") or 1)
    queue = labels.get(contract.QUEUE_LABEL)
    facts = run_facts.gather(job, pods, events, now, nodes=nodes, queue=queue, queue_words=queue_words)
    cancelled = annotations.get(contract.CANCELLED_ANNOTATION)
    phase = _phase(facts, cancelled)
    failure = failures.why_failed(facts) if phase == "Failed" else None
    storage = _value(asked, "storage", "uri")
    return RunStatus(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        phase=phase,
        reason=_reason(facts, phase, failure, deleted=meta.get("deletionTimestamp") is not None),
        model=_value(asked, "model", "name") or labels.get(contract.MODEL_LABEL) or "",
        data=_value(asked, "data", "source"),
        gpus=_count(asked, "gpus"),
        nodes=nodes,
        queue=queue,
        created=moment(meta.get("creationTimestamp")),
        started=moment(facts.state.get("startTime")) if facts.has_begun else None,
        finished=_finished(phase, facts, cancelled),
        attempts=facts.attempts,
        retries=facts.retries,
        progress=facts.shown(is_over=phase in TERMINAL or phase == "Suspended"),
        is_progressing=phase in RUNNING and facts.is_progressing,
        failure=failure,
        storage=f"{storage.rstrip('/')}/{meta['name']}" if storage else None,
        image=pod_states.container(spec["template"]).get("image"),
        pods=facts.pods,
    )


def shortened(text: str, limit: int) -> str:
    """A text of at most so many characters; one that is too long loses its middle: the cause often comes last."""
    if len(text) <= limit:
        return text
    begin = limit // 3
    return f"{text[:begin]}…{text[len(text) - (limit - begin - 1) :]}"


def percent(progress: Progress) -> float | None:
    """Share of the optimizer steps that are done, from 0 to 100; None before their number is known."""
    return min(100.0, 100 * progress.step / progress.total_steps) if progress.total_steps else None


def _phase(facts: RunFacts, cancelled: str | None) -> str:
    for condition, phase in _OUTCOMES.items():
        if condition in facts.conditions:
            return phase
    if facts.spec.get("suspend"):
        # a queue holds its runs suspended until their turn comes
        return "Cancelled" if cancelled else "Pending" if facts.queue else "Suspended"
    if facts.has_succeeded:
        return "Publishing"
    report, all_run = facts.current, facts.running >= facts.nodes
    if report is None:
        return "Preparing" if all_run else "Pending"
    phase = contract.PHASES.get(report.phase, "Preparing")
    # the weights come to each node for itself; nothing trains before all are there
    if report.phase == "end" or (phase == "Training" and facts.nodes > 1 and not all_run):
        return "Pending"
    return phase


def _reason(facts: RunFacts, phase: str, failure: LastWords | None, *, deleted: bool) -> str:
    if phase == "Failed" and failure is not None:
        text = f"{failure.failure}: {failure.message}"
    elif phase == "Pending":
        text = diagnosis.why_pending(facts)
    else:
        text = diagnosis.why_in_phase(facts, phase)
    if deleted:
        text = f"is being deleted; {text}" if text else "is being deleted"
    return shortened(one_line(text), LONGEST) if text else ""


def _finished(phase: str, facts: RunFacts, cancelled: str | None) -> datetime | None:
    if phase == "Cancelled":
        return moment(cancelled)
    if phase not in TERMINAL:
        return None
    ends = [moment(facts.conditions[each].get("lastTransitionTime")) for each in _OUTCOMES if each in facts.conditions]
    return moment(facts.state.get("completionTime")) or next(iter(ends), None)


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
