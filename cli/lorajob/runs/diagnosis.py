"""Why a run is in its phase: what a pending run waits for, and what a running one is doing. One line each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from lorajob.runs import failures
from lorajob.runs.pod_states import STARTING
from lorajob.runs.pod_status import PodStatus, moment
from lorajob.runs.run_facts import RunFacts
from lorajob_runtime.contract.text import duration, one_line

Object = Mapping[str, Any]

_SILENT_FOR = timedelta(minutes=2)
"""A container that has run this long without a report is worth a word."""


def why_pending(facts: RunFacts) -> str:
    """What a run that is not running waits for."""
    if facts.spec.get("suspend"):
        turn = f"waits for its turn in queue {facts.queue}"
        if facts.has_pods:
            return f"its pods are stopping; then it {turn}"
        return f"{turn}: {facts.queue_words}" if facts.queue_words else turn
    away = [each for each in facts.newest_pods if not each.runs]
    if facts.current is not None and facts.current.phase == "end":
        text = failures.ending(facts, facts.current)
        return f"{text}: {_of_pod(facts, away[0])}" if away and facts.nodes > 1 and away[0].state != "Failed" else text
    waiting = [each for each in away if each.state in ("Waiting", "Stopping", "Running")]
    if len(waiting) + facts.running < facts.nodes and (refused := _refused(facts)):
        return refused
    if not waiting and facts.running < facts.nodes and (facts.failed or away):
        return _with_count(facts, failures.between_attempts(facts))
    hanging = _hanging(facts, waiting)
    if hanging is not None:
        return _with_count(facts, _of_pod(facts, hanging))
    if stopping := next((each for each in waiting if each.state == "Stopping"), None):
        return _with_count(facts, _stopping(facts, stopping))
    if facts.pods is None and facts.report is not None and facts.state.get("active"):
        # only its pods tell which of them it is, and why
        return f"{_count(facts)}: `lorajob status {facts.name}` looks at them"
    if facts.running:
        return f"waits for all its pods ({_count(facts)})"
    return "its pod has not started yet" if facts.state.get("active") else "waits for its pod to be created"


def why_in_phase(facts: RunFacts, phase: str) -> str:
    """What there is to say of a run in any other phase; empty where that is nothing."""
    if phase == "Suspended":
        return "is stopping, after a checkpoint" if facts.has_pods else f"`lorajob resume {facts.name}` continues it"
    if phase == "Cancelled":
        return "its pods are stopping" if facts.has_pods else ""
    if phase in ("Succeeded", "Failed"):
        return ""
    if facts.has_succeeded:
        return _succeeded(facts)
    parts = [_late(facts), _missing(facts)]
    if any(parts):
        return "; ".join(part for part in parts if part)
    if facts.current is not None:
        return facts.current.note
    began = moment(facts.state.get("startTime"))
    if facts.newest_pods:
        began = max((each.started for each in facts.newest_pods if each.runs and each.started), default=began)
    if began is not None and facts.now - began > _SILENT_FOR:
        return f"has not reported since it started at {began:%H:%M:%S} UTC: see `lorajob logs {facts.name}`"
    return "has started and has not reported yet"


def _succeeded(facts: RunFacts) -> str:
    """A run that has done its work, and whose Job does not know it yet."""
    held = sorted({name for each in facts.newest_pods if each.state != "Running" for name in each.others})
    if held:
        return (
            "the run itself has ended; other containers in its pod are still running and keep the pod: "
            f"{', '.join(held)}"
            f" (`lorajob delete {facts.name}` ends them; its results stay)"
        )
    waits = next((each for each in facts.newest_pods if each.state == "Waiting"), None)
    if waits is not None:
        # the one that ended was lost before its Job had seen that
        return f"the run itself has ended; its Job ends when another pod has seen that: {_of_pod(facts, waits)}"
    return "the run itself has ended; its pod is ending" if facts.running else "the run itself has ended"


def _late(facts: RunFacts) -> str:
    """What is said about a run that has gone silent or makes no progress."""
    if facts.silence is not None:
        last = f" (last: {facts.current.note})" if facts.current is not None and facts.current.note else ""
        return f"has not reported for {duration(facts.silence.total_seconds())}{last}: see `lorajob logs {facts.name}`"
    if facts.standstill is not None:
        still = duration(facts.standstill.total_seconds())
        return (
            f"training has shown no sign of life for {still}: "
            "if that continues, this attempt ends and the next one resumes"
        )
    return ""


def _missing(facts: RunFacts) -> str:
    """Which pod of several does not run while the others do."""
    if facts.running >= facts.nodes or not facts.newest_pods:
        return ""
    away = [each for each in facts.newest_pods if not each.runs and each.state != "Succeeded"]
    hanging = _hanging(facts, away) or next(iter(away), None)
    return _with_count(facts, _of_pod(facts, hanging)) if hanging is not None and facts.nodes > 1 else ""


def _hanging(facts: RunFacts, waiting: Sequence[PodStatus]) -> PodStatus | None:
    """Of the pods that do not run the one that says most: one that no node takes before one that is about to start."""
    told = [each for each in waiting if each.state in ("Waiting", "Running") and each.reason]
    return min(told, key=lambda each: each.reason in STARTING, default=None)


def _of_pod(facts: RunFacts, each: PodStatus) -> str:
    """What a pod waits for or how it ended; of several nodes with its number."""
    text = _mount_trouble(facts, each) or each.reason or each.state.lower()
    if facts.nodes == 1:
        return text
    joined = " is " if text.startswith(("not scheduled", "waiting", "stopping")) else ": "
    return f"pod {each.node}{joined}{text}"


def _stopping(facts: RunFacts, pod: PodStatus) -> str:
    which = "its pod" if facts.nodes == 1 else f"pod {pod.node}"
    why = f" ({pod.disruption}, which does not count)" if pod.disruption else ""
    return f"{which} is stopping{why}; the next one starts after that"


def _with_count(facts: RunFacts, text: str) -> str:
    return f"{text} ({_count(facts)})" if facts.nodes > 1 else text


def _count(facts: RunFacts) -> str:
    if facts.nodes == 1:
        return "its pod is running" if facts.running else "its pod is not running, or not as it should"
    return f"{facts.running} of {facts.nodes} pods are running"


def _refused(facts: RunFacts) -> str:
    """Why the Job's pods can't be created: only its events say so, and only for an hour."""
    told = [each for each in facts.events if (each.get("involvedObject") or {}).get("kind") == "Job"]
    told.sort(key=_event_time)
    last = next((each for each in reversed(told) if each.get("reason") in ("FailedCreate", "SuccessfulCreate")), None)
    if last is None or last["reason"] != "FailedCreate":
        return ""
    text = one_line(last.get("message", ""))
    text = text.removeprefix("(combined from similar events): ").removeprefix("Error creating: ")
    text = re.sub(r'^pods "[^"]*" is forbidden: ', "", text)
    return f"its pods can't be created: {text}"


def _mount_trouble(facts: RunFacts, hanging: PodStatus) -> str:
    """A volume that can't be mounted leaves no trace in the pod itself."""
    if hanging.reason not in STARTING:
        return ""
    told = [
        each
        for each in facts.events
        if (each.get("involvedObject") or {}).get("name") == hanging.name
        and each.get("reason") in ("FailedMount", "FailedAttachVolume")
    ]
    return one_line(max(told, key=_event_time).get("message", "")) if told else ""


def _event_time(event: Object) -> str:
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return next((each for each in times if each), (event.get("metadata") or {}).get("creationTimestamp") or "")
