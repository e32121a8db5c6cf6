"""What state a run is in, from the objects that Kubernetes keeps of it: one RunStatus. Pure.

`list`, `status`, `watch`, `wait` and their JSON all take it from here; `list` has nothing but the Jobs to tell it from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lorajob.runs import diagnosis, failures, pod_states, run_facts, spec_fields
from lorajob.runs.pod_status import moment
from lorajob.runs.run_facts import RunFacts
from lorajob.runs.run_status import RUNNING, TERMINAL, RunStatus
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.kubernetes import TerminationMessage
from lorajob_runtime.contract.text import one_line

Object = Mapping[str, Any]

_OUTCOMES = {
    "Complete": "Succeeded",
    "SuccessCriteriaMet": "Succeeded",
    "Failed": "Failed",
    "FailureTarget": "Failed",
}
"""Condition -> phase. The second of each pair comes first, while pods are still being stopped: the end is certain."""

LONGEST = 400
"""Characters of a reason: what the API server and the container runtime say can be pages."""


def from_job(job: Object, now: datetime) -> RunStatus:
    """The status by the Job alone, as a list of Jobs gives it."""
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
    asked = spec_fields.read(spec)
    nodes = int(spec.get("completions") or spec.get("parallelism") or 1)
    queue = labels.get(contract.QUEUE_LABEL)
    facts = run_facts.gather(job, pods, events, now, nodes=nodes, queue=queue, queue_words=queue_words)
    cancelled = annotations.get(contract.CANCELLED_ANNOTATION)
    phase = _phase(facts, cancelled)
    failure = failures.why_failed(facts) if phase == "Failed" else None
    return RunStatus(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        phase=phase,
        reason=_reason(facts, phase, failure, deleted=meta.get("deletionTimestamp") is not None),
        model=asked.model or labels.get(contract.MODEL_LABEL) or "",
        data=asked.data,
        gpus=asked.gpus,
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
        storage_uri=asked.storage_uri,
        image=pod_states.container(spec["template"]).get("image"),
        pods=facts.pods,
    )


def shortened(text: str, limit: int) -> str:
    """A text of at most so many characters; one that is too long loses its middle: the cause often comes last."""
    if len(text) <= limit:
        return text
    begin = limit // 3
    return f"{text[:begin]}…{text[len(text) - (limit - begin - 1) :]}"


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


def _reason(facts: RunFacts, phase: str, failure: TerminationMessage | None, *, deleted: bool) -> str:
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
