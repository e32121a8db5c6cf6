"""Why a run is in its phase: what a pending one waits for, what a running one is busy with. One line each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from lorajob.runs import failures
from lorajob.runs.pod_states import STARTING, PodStatus, moment
from lorajob.runs.run_facts import View
from lorajob_runtime.contract.human import duration, one_line

Object = Mapping[str, Any]

_SILENT_FOR = timedelta(minutes=2)
"""A container that has run this long without a report is worth a word."""


def pending(view: View) -> str:
    """What a run that is not running waits for."""
    if view.spec.get("suspend"):
        turn = f"waits for its turn in queue {view.queue}"
        if view.has_pods:
            return f"its pods are stopping; then it {turn}"
        return f"{turn}: {view.queue_words}" if view.queue_words else turn
    away = [each for each in view.present if not each.runs]
    if view.current is not None and view.current.phase == "end":
        text = failures.ending(view, view.current)
        return f"{text}: {_of_pod(view, away[0])}" if away and view.nodes > 1 and away[0].state != "Failed" else text
    waiting = [each for each in away if each.state in ("Waiting", "Stopping", "Running")]
    if len(waiting) + view.running < view.nodes and (refused := _refused(view)):
        return refused
    if not waiting and view.running < view.nodes and (view.failed or away):
        return _with_count(view, failures.between_attempts(view))
    hanging = _hanging(view, waiting)
    if hanging is not None:
        return _with_count(view, _of_pod(view, hanging))
    if stopping := next((each for each in waiting if each.state == "Stopping"), None):
        return _with_count(view, _stopping(view, stopping))
    if view.pods is None and view.report is not None and view.state.get("active"):
        # only its pods tell which of them it is, and why
        return f"{_count(view)}: `lorajob status {view.name}` looks at them"
    if view.running:
        return f"waits for all its pods ({_count(view)})"
    return "its pod has not started yet" if view.state.get("active") else "waits for its pod to be created"


def present(view: View, phase: str) -> str:
    """What there is to say of a run in any other phase; empty where that is nothing."""
    if phase == "Suspended":
        return "stops, with a checkpoint" if view.has_pods else f"`lorajob resume {view.name}` goes on"
    if phase == "Cancelled":
        return "its pods are stopping" if view.has_pods else ""
    if phase in ("Succeeded", "Failed"):
        return ""
    if view.has_succeeded:
        return _succeeded(view)
    parts = [_late(view), _missing(view)]
    if any(parts):
        return "; ".join(part for part in parts if part)
    if view.current is not None:
        return view.current.note
    began = moment(view.state.get("startTime"))
    if view.present:
        began = max((each.started for each in view.present if each.runs and each.started), default=began)
    if began is not None and view.now - began > _SILENT_FOR:
        return f"has not reported since it started at {began:%H:%M:%S} UTC: see `lorajob logs {view.name}`"
    return "has started and not reported yet"


def _succeeded(view: View) -> str:
    """A run that has done its work, and whose Job does not know it yet."""
    held = sorted({name for each in view.present if each.state != "Running" for name in each.others})
    if held:
        return (
            f"the run itself has ended; other containers in its pod still run and keep it there: {', '.join(held)}"
            f" (`lorajob delete {view.name}` ends them, its results stay)"
        )
    waits = next((each for each in view.present if each.state == "Waiting"), None)
    if waits is not None:
        # the one that ended was lost before its Job had seen that
        return f"the run itself has ended; its Job ends when another pod has seen that: {_of_pod(view, waits)}"
    return "the run itself has ended; its pod is ending" if view.running else "the run itself has ended"


def _late(view: View) -> str:
    """What is said of a run that has gone silent, or does not get on."""
    if view.silence is not None:
        last = f" (last: {view.current.note})" if view.current is not None and view.current.note else ""
        return f"has not reported for {duration(view.silence.total_seconds())}{last}: see `lorajob logs {view.name}`"
    if view.standstill is not None:
        still = duration(view.standstill.total_seconds())
        return f"training has given no sign of life for {still}: when that lasts, its attempt ends and the next goes on"
    return ""


def _missing(view: View) -> str:
    """Which pod of several does not run while the others do."""
    if view.running >= view.nodes or not view.present:
        return ""
    away = [each for each in view.present if not each.runs and each.state != "Succeeded"]
    hanging = _hanging(view, away) or next(iter(away), None)
    return _with_count(view, _of_pod(view, hanging)) if hanging is not None and view.nodes > 1 else ""


def _hanging(view: View, waiting: Sequence[PodStatus]) -> PodStatus | None:
    """Of the pods that do not run the one that says most: one that no node takes before one that is about to start."""
    told = [each for each in waiting if each.state in ("Waiting", "Running") and each.reason]
    return min(told, key=lambda each: each.reason in STARTING, default=None)


def _of_pod(view: View, each: PodStatus) -> str:
    """What a pod waits for or how it ended; of several nodes with its number."""
    text = _mount_trouble(view, each) or each.reason or each.state.lower()
    if view.nodes == 1:
        return text
    joined = " is " if text.startswith(("not scheduled", "waiting", "stopping")) else ": "
    return f"pod {each.node}{joined}{text}"


def _stopping(view: View, pod: PodStatus) -> str:
    which = "its pod" if view.nodes == 1 else f"pod {pod.node}"
    why = f" ({pod.disruption}, which does not count)" if pod.disruption else ""
    return f"{which} is stopping{why}; the next one starts when it has"


def _with_count(view: View, text: str) -> str:
    return f"{text} ({_count(view)})" if view.nodes > 1 else text


def _count(view: View) -> str:
    if view.nodes == 1:
        return "its pod runs" if view.running else "its pod does not run, or not as it should"
    return f"{view.running} of {view.nodes} pods run"


def _refused(view: View) -> str:
    """Why the Job's pods can't be created: only its events say so, and only for an hour."""
    told = [each for each in view.events if (each.get("involvedObject") or {}).get("kind") == "Job"]
    told.sort(key=_event_time)
    last = next((each for each in reversed(told) if each.get("reason") in ("FailedCreate", "SuccessfulCreate")), None)
    if last is None or last["reason"] != "FailedCreate":
        return ""
    text = one_line(last.get("message", ""))
    text = text.removeprefix("(combined from similar events): ").removeprefix("Error creating: ")
    text = re.sub(r'^pods "[^"]*" is forbidden: ', "", text)
    return f"its pods are refused: {text}"


def _mount_trouble(view: View, hanging: PodStatus) -> str:
    """A volume that can't be mounted leaves no trace in the pod itself."""
    if hanging.reason not in STARTING:
        return ""
    told = [
        each
        for each in view.events
        if (each.get("involvedObject") or {}).get("name") == hanging.name
        and each.get("reason") in ("FailedMount", "FailedAttachVolume")
    ]
    return one_line(max(told, key=_event_time).get("message", "")) if told else ""


def _event_time(event: Object) -> str:
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return next((each for each in times if each), (event.get("metadata") or {}).get("creationTimestamp") or "")
