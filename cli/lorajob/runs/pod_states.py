"""From the pods of a run as Kubernetes describes them to PodStatus: does it run, what does it wait for, how did it end.

Pure. That a node is lost is taken from the pod's condition Ready; what ended a pod is `pod_failures`' to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lorajob.runs import pod_failures
from lorajob.runs.pod_status import PodStatus, moment
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.kubernetes import TerminationMessage
from lorajob_runtime.contract.text import one_line

Object = Mapping[str, Any]

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Set by the Job controller on every pod of an Indexed Job."""
_TRACKED = "batch.kubernetes.io/job-tracking"
"""The finalizer of a pod that the Job controller has not counted yet."""

STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_PULLING = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})

_WRAPPERS = re.compile(
    r'^(?:Back-off pulling image "[^"]*"|ErrImagePull|rpc error: code = \w+ desc'
    r'|[Ff]ailed to pull (?:and unpack )?image "[^"]*"|failed to resolve (?:reference|image)(?: "[^"]*")?'
    r'|failed to do request|(?:Head|Get) "[^"]*"|unexpected status from (?:HEAD|GET) request to \S+'
    r"|pulling from host \S+ failed with status code \[[^\]]*\])(?::\s*| = )"
)
"""The way there, which the container runtime puts before the cause why an image can't be pulled, one after another."""


def container(template: Object) -> Object:
    """The run's own container in a pod template or pod."""
    containers: Sequence[Object] = template.get("spec", {}).get("containers") or ({},)
    return next((each for each in containers if each.get("name") == contract.CONTAINER), containers[0])


def read_pods(pods: Sequence[Object], job_spec: Object | None = None) -> tuple[PodStatus, ...]:
    """Every pod of a Job, by node and then by age. `job_spec` says which of their failures count."""
    rules = ((job_spec or {}).get("podFailurePolicy") or {}).get("rules") or ()
    oldest_first = sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp")))
    return tuple(sorted((_read(each, rules) for each in oldest_first), key=lambda each: each.node))


def _read(pod: Object, rules: Sequence[Object]) -> PodStatus:
    meta, spec, state = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    statuses: Sequence[Object] = state.get("containerStatuses") or ()
    own = next((each for each in statuses if each.get("name") == contract.CONTAINER), statuses[0] if statuses else {})
    held = own.get("state") or {}
    ended: Object = held.get("terminated") or {}
    disruption = pod_failures.disruption_of(state)
    is_reachable = _is_reachable(spec, state)
    others = tuple(each["name"] for each in statuses if each is not own and (each.get("state") or {}).get("running"))
    kind = _kind(meta, state.get("phase"), held)
    words = pod_failures.last_words_of(state, ended, disruption) if kind == "Failed" else None
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
        termination_message=words,
        uid=str(meta.get("uid") or ""),
        created=moment(meta.get("creationTimestamp")),
        is_reachable=is_reachable,
        disruption=disruption,
        counts=has_failed and pod_failures.is_counted(rules, state),
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
    words: TerminationMessage | None,
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
        return f"its other containers are still running: {', '.join(others)}"
    return disruption


def _is_reachable(spec: Object, state: Object) -> bool:
    """Whether the pod's node answers. Of one that does not, Kubernetes takes back that its pods are ready.

    It does so in the condition Ready alone. A container that is not ready shows in ContainersReady too, and a gate that
    others ask for is no matter of the node.
    """
    held = {each.get("type"): each.get("status") for each in state.get("conditions") or ()}
    is_taken_back = held.get("Ready") == "False" and held.get("ContainersReady") == "True"
    return not (is_taken_back and not spec.get("readinessGates") and state.get("phase") == "Running")


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
