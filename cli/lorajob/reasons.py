"""Why a run is in its phase: what a pending one waits for, why a failed one failed. One line each. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lorajob_runtime import exits
from lorajob_runtime import pod as contract
from lorajob_runtime.pod import LastWords, Progress
from lorajob_runtime.report.human import duration, one_line

Object = Mapping[str, Any]

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Set by the Job controller on every pod of an Indexed Job."""

LONGEST = 300
"""Characters of a reason: what the API server and the container runtime say can be pages."""

EVICTED = "evicted"
"""Class of a pod that its node put out: it does not count against the retries."""
OOM_HINT = "ask for more with resources.memory, or lower train.batchSize or data.maxLength"
RETRY_HINT = "`lorajob retry {name}` goes on from the last checkpoint"

_SIGKILL_EXIT_CODE = 137
_LAST_WORDS_BEFORE_FAILURE = timedelta(seconds=60)
"""How long before the Job failed its last pod may have reported its end: a supervisor does so just before it exits."""
_SILENT_FOR = timedelta(minutes=2)
"""A container that has run this long without a report is worth a word."""
_PULLING = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PodStatus:
    """One pod of a run."""

    name: str
    node: int
    """Which of the run's nodes it is, from 0."""
    state: str
    """Waiting, Running, Stopping, Succeeded or Failed."""
    reason: str
    host: str | None
    """The Kubernetes node it is on."""
    started: datetime | None
    finished: datetime | None
    exit_code: int | None
    last_words: LastWords | None
    """How it ended, of one that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is known of a run when its phase and reason are decided."""

    name: str
    spec: Object
    state: Object
    conditions: Mapping[str, Object]
    nodes: int
    failed_attempts: int
    retries: int
    queue: str | None
    pods: tuple[PodStatus, ...] | None
    report: Progress | None
    report_time: datetime | None
    report_is_current: bool
    events: tuple[Object, ...]
    now: datetime

    @property
    def running(self) -> int:
        """Pods whose container runs."""
        if self.pods is None:
            return int(self.state.get("ready") or 0)
        return sum(each.state == "Running" for each in self.pods)


def moment(text: str | None) -> datetime | None:
    """A time as Kubernetes writes it; None for none, or for what is no time."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def container(template: Object) -> Object:
    """The run's own container in a pod template or pod."""
    containers: Sequence[Object] = template.get("spec", {}).get("containers") or ({},)
    return next((each for each in containers if each.get("name") == contract.CONTAINER), containers[0])


def read_pods(pods: Sequence[Object]) -> tuple[PodStatus, ...]:
    """Every pod of a Job, by node and then by age."""
    oldest_first = sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp")))
    return tuple(sorted((_read_pod(each) for each in oldest_first), key=lambda each: each.node))


def pending(view: View) -> str:
    """What a run that is not running waits for."""
    if view.spec.get("suspend"):
        return f"waits for its turn in queue {view.queue}"
    if view.report_is_current and view.report is not None and view.report.phase == "end":
        words = _reported(view.report)
        return f"its attempt has failed ({words.failure}: {one_line(words.message, 120)}) and its pod is ending"
    waiting = [each for each in view.pods or () if each.state in ("Waiting", "Stopping")]
    if len(waiting) + view.running < view.nodes and (refused := _refused(view)):
        return refused
    if view.failed_attempts and not waiting and view.running < view.nodes:
        return _between_attempts(view)
    hanging = [each for each in waiting if each.state == "Waiting" and each.reason]
    # a pod that no node takes says more than one that is about to start
    hanging.sort(key=lambda each: each.reason in _STARTING)
    if hanging:
        text = _mount_trouble(view, hanging[0]) or hanging[0].reason
        return f"{text} ({_count(view)})" if view.nodes > 1 else text
    if any(each.state == "Stopping" for each in waiting):
        return "its pod is stopping; the next one starts when it has"
    if view.running:
        return f"waits for all its pods ({_count(view)})"
    return "its pod has not started yet" if view.state.get("active") else "waits for its pod to be created"


def present(view: View, phase: str) -> str:
    """What there is to say of a run in any other phase; empty where that is nothing."""
    if phase == "Suspended":
        is_stopping = bool(view.state.get("active") or view.state.get("terminating"))
        return "stops, with a checkpoint" if is_stopping else f"`lorajob resume {view.name}` goes on"
    if phase == "Cancelled":
        is_stopping = bool(view.state.get("active") or view.state.get("terminating"))
        return "its pods are stopping" if is_stopping else ""
    if phase in ("Succeeded", "Failed"):
        return ""
    if view.report_is_current and view.report is not None:
        return view.report.note
    began = moment(view.state.get("startTime"))
    if view.pods:
        began = max((each.started for each in view.pods if each.state == "Running" and each.started), default=began)
    if began is not None and view.now - began > _SILENT_FOR:
        return f"has not reported since it started at {began:%H:%M:%S} UTC: see `lorajob logs {view.name}`"
    return "has started and not reported yet"


def failure(view: View) -> LastWords:
    """Why a run has failed for good: what its last attempt said, else what Kubernetes says."""
    condition = view.conditions.get("Failed") or view.conditions.get("FailureTarget") or {}
    reason, message = condition.get("reason", ""), one_line(condition.get("message", ""))
    if reason == "DeadlineExceeded":
        limit = duration(float(view.spec.get("activeDeadlineSeconds") or 0))
        hint = f"`lorajob retry {view.name} --set resources.timeout=…` goes on from the last checkpoint"
        return LastWords(exit_code=124, failure="timeout", message=f"ran longer than its limit of {limit}", hint=hint)
    named = re.search(r"for pod \S+/(\S+) failed with exit code (\d+)", message)
    pod_name = named[1] if named else None
    if words := _last_attempt(view, pod_name, condition):
        return _with_next_step(words, view.name)
    hint = RETRY_HINT.format(name=view.name)
    if named:
        return _with_next_step(_from_code(int(named[2]), f"a pod ended with exit code {named[2]}"), view.name)
    if reason == "BackoffLimitExceeded":
        gone = f"its pods are gone, and {view.failed_attempts} of 1+{view.retries} attempts failed"
        return LastWords(exit_code=1, failure="lost", message=gone, hint=f"{hint}; `lorajob logs {view.name}` has more")
    return LastWords(exit_code=1, failure="lost", message=message or "its Job failed without a word", hint=hint)


def _last_attempt(view: View, pod_name: str | None, condition: Object) -> LastWords | None:
    """What the pods of the last attempt said, else the report, if it is that attempt's."""
    failed = [each for each in view.pods or () if each.state == "Failed" and each.last_words is not None]
    if named := [each for each in failed if each.name == pod_name]:
        failed = named
    report = view.report if view.report is not None and view.report.exit_code else None
    if failed:
        last = max((each.finished for each in failed if each.finished), default=None)
        if report is not None and report.pod not in {each.name for each in view.pods or ()} and _is_after(view, last):
            # the pod that reported its end last was deleted after it
            return _reported(report)
        together = [each for each in failed if last is None or each.finished is None or _near(each.finished, last)]
        return min((each.last_words for each in together if each.last_words is not None), key=_telling)
    if report is None or pod_name not in (None, report.pod):
        return None
    ended = moment(condition.get("lastTransitionTime"))
    is_last = ended is None or view.report_time is None or ended - view.report_time < _LAST_WORDS_BEFORE_FAILURE
    return _reported(report) if is_last or pod_name else None


def _with_next_step(words: LastWords, name: str) -> LastWords:
    """Nothing tries this run again by itself, whatever the hint of its class says."""
    known = exits.from_name(words.failure)
    if words.hint and (known.final or known is exits.UNEXPECTED or words.hint != known.hint):
        return words
    return dataclasses.replace(words, hint=RETRY_HINT.format(name=name))


def _near(one: datetime, other: datetime) -> bool:
    return abs(one - other) < _LAST_WORDS_BEFORE_FAILURE


def _is_after(view: View, ended: datetime | None) -> bool:
    return ended is not None and view.report_time is not None and view.report_time > ended


def _telling(words: LastWords) -> int:
    """Smaller for the cause than for its consequences: of a group, one node fails and the others lose it."""
    known = exits.from_code(words.exit_code)
    if known.final and known.code not in (exits.UNEXPECTED.code, exits.INTERRUPTED.code):
        return 0
    return 1 if known.code not in (exits.UNEXPECTED.code, exits.STOPPED.code, exits.INTERRUPTED.code) else 2


def _between_attempts(view: View) -> str:
    words = _last_attempt(view, None, {})
    said = f" ({words.failure}: {one_line(words.message, 120)})" if words else ""
    left = max(0, view.retries - view.failed_attempts)
    verb = "was lost" if words is None and view.pods == () else "failed"
    text = f"attempt {view.failed_attempts} {verb}{said}"
    if words is not None and exits.from_name(words.failure).final:
        return f"{text}; it is not tried again"
    if view.failed_attempts > view.retries:
        return f"{text}; no retry is left"
    return f"{text}; the next starts soon, {left} of {view.retries} retries left after it"


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
    if hanging.reason not in _STARTING:
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


def _count(view: View) -> str:
    return f"{view.running} of {view.nodes} pods run"


def _read_pod(pod: Object) -> PodStatus:
    meta, spec, state = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    statuses: Sequence[Object] = state.get("containerStatuses") or ()
    own = next((each for each in statuses if each.get("name") == contract.CONTAINER), statuses[0] if statuses else {})
    held = own.get("state") or {}
    ended: Object = held.get("terminated") or {}
    phase = state.get("phase")
    if phase in ("Succeeded", "Failed"):
        kind = phase
    elif ended:
        kind = "Failed" if ended.get("exitCode") else "Succeeded"
    elif meta.get("deletionTimestamp"):
        kind = "Stopping"
    else:
        kind = "Running" if held.get("running") else "Waiting"
    words = _pod_last_words(state, ended) if kind == "Failed" else None
    index = (meta.get("labels") or {}).get(INDEX_LABEL) or "0"
    return PodStatus(
        name=meta["name"],
        node=int(index) if index.isdigit() else 0,
        state=kind,
        reason=_waiting(state, held) if kind == "Waiting" else f"{words.failure}: {words.message}" if words else "",
        host=spec.get("nodeName"),
        started=moment((held.get("running") or ended).get("startedAt")),
        finished=moment(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        last_words=words,
    )


def _waiting(state: Object, held: Object) -> str:
    """What a pod waits for whose container does not run: a node, an image, a Secret, …; one line."""
    for condition in state.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = one_line(condition.get("message", ""))
            # what follows the first sentence repeats it from the point of view of preemption
            return f"not scheduled: {message.partition('. ')[0].rstrip('.') or condition.get('reason', '')}"
    waiting = held.get("waiting") or {}
    reason, message = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    if reason in _PULLING:
        return f"the image can't be pulled ({reason}): {message}"
    return f"{reason}: {message}" if message else reason


def _pod_last_words(state: Object, ended: Object) -> LastWords:
    """How a failed pod ended: by its own message, else by what killed it."""
    if words := contract.read_last_words(ended.get("message") or ""):
        return words
    code = int(ended.get("exitCode") or exits.UNEXPECTED.code)
    if ended.get("reason") == "OOMKilled":
        message = "the container used more memory than it may (OOMKilled)"
        return LastWords(exit_code=code, failure=exits.OUT_OF_MEMORY.name, message=message, hint=OOM_HINT)
    if state.get("reason"):
        message = f"{state['reason']}: {one_line(state.get('message') or 'stopped by Kubernetes')}"
        return LastWords(exit_code=code, failure=EVICTED, message=message, hint="")
    if code == _SIGKILL_EXIT_CODE:
        return LastWords(exit_code=code, failure="killed", message="the container was killed (SIGKILL)")
    # what comes before it in the words of the container runtime is the way there
    said = one_line(ended.get("message") or "").rpartition("unable to start container process: ")[2]
    return _from_code(code, one_line(said, 200) or f"ended with exit code {code}")


def _from_code(code: int, message: str) -> LastWords:
    known = exits.from_code(code)
    return LastWords(exit_code=code, failure=known.name, message=message, hint=known.hint)


def _reported(report: Progress) -> LastWords:
    code = report.exit_code or exits.UNEXPECTED.code
    known = exits.from_code(code)
    return LastWords(
        exit_code=code,
        failure=report.failure or known.name,
        message=one_line(report.message) or f"ended with exit code {code}",
        hint=report.hint or known.hint,
    )
