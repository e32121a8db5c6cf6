"""One pod of a run as Kubernetes describes it: does it run, what does it wait for, how did it end, and does that count.

Pure. Each cause is taken from the object and condition that knows it: that of a disruption from the pod's condition
DisruptionTarget, that of a lost node from its condition Ready, that of a failure from the container's termination.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lorajob_runtime.contract import errors
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.human import one_line
from lorajob_runtime.contract.kubernetes import LastWords

Object = Mapping[str, Any]

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Set by the Job controller on every pod of an Indexed Job."""
_TRACKED = "batch.kubernetes.io/job-tracking"
"""The finalizer of a pod that the Job controller has not counted yet."""

EVICTED = "evicted"
"""Class of a pod that its node, an eviction or a more important pod put out."""
_DISK_HINT = "its files need more room than the platform gives a pod (resources.work): ask who runs the platform"

STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_PULLING = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_SIGKILL_EXIT_CODE = 137

_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "EvictionByEvictionAPI": "evicted, as when its node is drained",
    "DeletionByTaintManager": "put out, since its node is lost or was tainted",
    "DeletionByPodGC": "lost with its node, which is gone",
    "TerminationByKubelet": "put out by its node",
}
"""https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions"""

_USUAL_MESSAGES = re.compile(
    r"Eviction API: evicting|Taint manager: deleting due to NoExecute taint|PodGC: node no longer exists"
    r"|\S+: preempting to accommodate a higher priority pod"
)
"""What says no more than the reason does."""

_WRAPPERS = re.compile(
    r'^(?:Back-off pulling image "[^"]*"|ErrImagePull|rpc error: code = \w+ desc'
    r'|[Ff]ailed to pull (?:and unpack )?image "[^"]*"|failed to resolve (?:reference|image)(?: "[^"]*")?'
    r'|failed to do request|(?:Head|Get) "[^"]*"|unexpected status from (?:HEAD|GET) request to \S+'
    r"|pulling from host \S+ failed with status code \[[^\]]*\])(?::\s*| = )"
)
"""The way there, which the container runtime puts before the cause why an image can't be pulled, one after another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PodStatus:
    """One pod of a run."""

    name: str
    node: int
    """Which of the run's nodes it is, from 0."""
    state: str
    """Waiting, Running, Stopping, Succeeded or Failed: of the run's own container."""
    reason: str
    host: str | None
    """The Kubernetes node it is on."""
    started: datetime | None
    finished: datetime | None
    exit_code: int | None
    last_words: LastWords | None
    """How it ended, of one that failed."""
    uid: str = ""
    created: datetime | None = None
    is_reachable: bool = True
    """False: its node does not answer, so what it says of the pod is old."""
    disruption: str = ""
    """What other than the run itself ends or ended it; empty where nothing does."""
    counts: bool = False
    """Whether it failed, and that counts against the Job's limit."""
    is_uncounted: bool = False
    """Whether the Job has not looked yet at how it ended."""
    others: tuple[str, ...] = ()
    """Containers that others put into it and that run."""

    @property
    def runs(self) -> bool:
        """Whether its container can be seen to run."""
        return self.state == "Running" and self.is_reachable


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


def read_pods(pods: Sequence[Object], job_spec: Object | None = None) -> tuple[PodStatus, ...]:
    """Every pod of a Job, by node and then by age. `job_spec` says which of their failures count."""
    rules = ((job_spec or {}).get("podFailurePolicy") or {}).get("rules") or ()
    oldest_first = sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp")))
    return tuple(sorted((_read(each, rules) for each in oldest_first), key=lambda each: each.node))


def newest(pods: Sequence[PodStatus]) -> tuple[PodStatus, ...]:
    """The newest pod of each node: an older one has been replaced."""
    return tuple({each.node: each for each in pods}.values())


def _read(pod: Object, rules: Sequence[Object]) -> PodStatus:
    meta, spec, state = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    statuses: Sequence[Object] = state.get("containerStatuses") or ()
    own = next((each for each in statuses if each.get("name") == contract.CONTAINER), statuses[0] if statuses else {})
    held = own.get("state") or {}
    ended: Object = held.get("terminated") or {}
    disruption = _disruption(state)
    is_reachable = _is_reachable(spec, state)
    others = tuple(each["name"] for each in statuses if each is not own and (each.get("state") or {}).get("running"))
    kind = _kind(meta, state.get("phase"), held)
    words = _last_words(state, ended, disruption) if kind == "Failed" else None
    index = (meta.get("labels") or {}).get(INDEX_LABEL) or "0"
    has_failed = state.get("phase") == "Failed"
    return PodStatus(
        name=meta["name"],
        node=int(index) if index.isdigit() else 0,
        state=kind,
        reason=_reason(kind, spec, state, held, words, disruption, others, is_reachable=is_reachable),
        host=spec.get("nodeName"),
        started=moment((held.get("running") or ended).get("startedAt")),
        finished=moment(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        last_words=words,
        uid=str(meta.get("uid") or ""),
        created=moment(meta.get("creationTimestamp")),
        is_reachable=is_reachable,
        disruption=disruption,
        counts=has_failed and _action(rules, state) != "Ignore",
        is_uncounted=has_failed and _TRACKED in (meta.get("finalizers") or ()),
        others=others,
    )


def _kind(meta: Object, phase: str | None, held: Object) -> str:
    if phase in ("Succeeded", "Failed"):
        return phase
    if ended := held.get("terminated"):
        return "Failed" if ended.get("exitCode") else "Succeeded"
    if meta.get("deletionTimestamp"):
        return "Stopping"
    return "Running" if held.get("running") else "Waiting"


def _reason(
    kind: str,
    spec: Object,
    state: Object,
    held: Object,
    words: LastWords | None,
    disruption: str,
    others: Sequence[str],
    *,
    is_reachable: bool,
) -> str:
    """What there is to say of a pod in its state; empty where that is nothing."""
    if words is not None:
        return f"{words.failure}: {words.message}"
    if not is_reachable:
        return f"its node {spec.get('nodeName')} does not answer"
    if kind == "Waiting":
        return disruption or _waiting(spec, state, held)
    if kind == "Succeeded" and others:
        return f"its other containers still run: {', '.join(others)}"
    return disruption


def _is_reachable(spec: Object, state: Object) -> bool:
    """Whether the pod's node answers. Of one that does not, Kubernetes takes back that its pods are ready.

    It does so in the condition Ready alone. A container that is not ready shows in ContainersReady too, and a gate that
    others ask for is no matter of the node.
    """
    held = {each.get("type"): each.get("status") for each in state.get("conditions") or ()}
    is_taken_back = held.get("Ready") == "False" and held.get("ContainersReady") == "True"
    return not (is_taken_back and not spec.get("readinessGates") and state.get("phase") == "Running")


def _disruption(state: Object) -> str:
    for condition in state.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason, message = str(condition.get("reason") or ""), one_line(condition.get("message") or "")
            words = _DISRUPTIONS.get(reason) or f"stopped by the cluster ({reason or 'it does not say why'})"
            return words if not message or _USUAL_MESSAGES.fullmatch(message) else f"{words}: {message.rstrip('.')}"
    return ""


def _action(rules: Sequence[Object], state: Object) -> str:
    """What the Job does about a failed pod: https://kubernetes.io/docs/concepts/workloads/controllers/job/."""
    for rule in rules:
        if (asked := rule.get("onExitCodes")) and _has_code(asked, state):
            return str(rule.get("action"))
        held = {(each.get("type"), each.get("status")) for each in state.get("conditions") or ()}
        wanted = rule.get("onPodConditions") or ()
        if any((each.get("type"), each.get("status") or "True") in held for each in wanted):
            return str(rule.get("action"))
    return "Count"


def _has_code(asked: Object, state: Object) -> bool:
    values = asked.get("values") or ()
    for each in state.get("containerStatuses") or ():
        code = ((each.get("state") or {}).get("terminated") or {}).get("exitCode")
        if asked.get("containerName") in (None, each.get("name")) and code:
            return (code in values) == (asked.get("operator") == "In")
    return False


def _waiting(spec: Object, state: Object, held: Object) -> str:
    """What a pod waits for whose container does not run: a node, an image, a Secret, …; one line."""
    for condition in state.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = one_line(condition.get("message", ""))
            # what follows the first sentence repeats it from the point of view of preemption
            return f"not scheduled: {message.partition('. ')[0].rstrip('.') or condition.get('reason', '')}"
    waiting = held.get("waiting") or {}
    reason, message = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    if reason in _PULLING:
        return f"the image {container({'spec': spec}).get('image', '')} can't be pulled ({reason}): {_cause(message)}"
    return f"{reason}: {message}" if message else reason


def _cause(message: str) -> str:
    """Why an image can't be pulled, without the way there: the name is known, and the cause comes last."""
    cause = message
    while (match := _WRAPPERS.match(cause)) and cause[match.end() :]:
        cause = cause[match.end() :]
    return cause or message


def _last_words(state: Object, ended: Object, disruption: str) -> LastWords:
    """How a failed pod ended: by its own message, else by what killed it."""
    if words := contract.read_last_words(ended.get("message") or ""):
        return words
    code = int(ended.get("exitCode") or errors.UNEXPECTED.code)
    if ended.get("reason") == "OOMKilled":
        message = "the container used more memory than it may (OOMKilled)"
        return LastWords(
            exit_code=code, failure=errors.OUT_OF_MEMORY.name, message=message, hint=errors.HOST_MEMORY_HINT
        )
    if disruption:
        return LastWords(exit_code=code, failure=EVICTED, message=disruption)
    if state.get("reason"):
        message = one_line(state.get("message") or "stopped by Kubernetes")
        hint = _DISK_HINT if re.search(r"[Ee]mpty ?[Dd]ir|ephemeral", message) and "exceed" in message else ""
        return LastWords(exit_code=code, failure=EVICTED, message=f"{state['reason']}: {message}", hint=hint)
    if code == _SIGKILL_EXIT_CODE:
        return LastWords(exit_code=code, failure="killed", message="the container was killed (SIGKILL)")
    # what comes before it in the words of the container runtime is the way there
    said = one_line(ended.get("message") or "").rpartition("unable to start container process: ")[2]
    return of_code(code, one_line(said, 200) or f"ended with exit code {code}")


def of_code(code: int, message: str) -> LastWords:
    """Last words of which only the exit code is known."""
    known = errors.from_code(code)
    return LastWords(exit_code=code, failure=known.name, message=message, hint=known.hint)
