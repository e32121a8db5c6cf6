"""How a pod of a run ended, what disrupts one, and whether its failure counts against the Job's limit. Pure.

Each cause is taken from the object that knows it: that of a disruption from the pod's condition DisruptionTarget, that
of a failure from the container's termination.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lorajob_runtime.contract import errors
from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.kubernetes import TerminationMessage
from lorajob_runtime.contract.text import one_line, truncate

Object = Mapping[str, Any]

EVICTED = "evicted"
"""Class of a pod that its node, an eviction or a more important pod put out."""
_DISK_HINT = (
    "its files need more room than the platform gives a pod (resources.work): ask the people who run the platform"
)

_SIGKILL_EXIT_CODE = 137

_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "EvictionByEvictionAPI": "evicted, as when its node is drained",
    "DeletionByTaintManager": "evicted, since its node is lost or was tainted",
    "DeletionByPodGC": "lost with its node, which is gone",
    "TerminationByKubelet": "evicted by its node",
}
"""https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions"""

_USUAL_MESSAGES = re.compile(
    r"Eviction API: evicting|Taint manager: deleting due to NoExecute taint|PodGC: node no longer exists"
    r"|\S+: preempting to accommodate a higher priority pod"
)
"""What says no more than the reason does."""


def disruption_of(state: Object) -> str:
    """What other than the run itself ends a pod or has ended it; empty where nothing does."""
    for condition in state.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason, message = str(condition.get("reason") or ""), one_line(condition.get("message") or "")
            words = _DISRUPTIONS.get(reason) or f"stopped by the cluster ({reason or 'no reason is given'})"
            return words if not message or _USUAL_MESSAGES.fullmatch(message) else f"{words}: {message.rstrip('.')}"
    return ""


def is_counted(rules: Sequence[Object], state: Object) -> bool:
    """Whether a failed pod counts against the Job's limit, by the rules of the Job's podFailurePolicy."""
    return _action(rules, state) != "Ignore"


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


def last_words_of(state: Object, ended: Object, disruption: str) -> TerminationMessage:
    """How a failed pod ended: by its own message, else by what killed it."""
    if words := contract.read_termination_message(ended.get("message") or ""):
        return words
    code = int(ended.get("exitCode") or errors.UNEXPECTED.code)
    if ended.get("reason") == "OOMKilled":
        message = "the container used more memory than its limit (OOMKilled)"
        return TerminationMessage(
            exit_code=code, failure=errors.OUT_OF_MEMORY.name, message=message, hint=errors.HOST_MEMORY_HINT
        )
    if disruption:
        return TerminationMessage(exit_code=code, failure=EVICTED, message=disruption)
    if state.get("reason"):
        message = one_line(state.get("message") or "stopped by Kubernetes")
        hint = _DISK_HINT if re.search(r"[Ee]mpty ?[Dd]ir|ephemeral", message) and "exceed" in message else ""
        return TerminationMessage(exit_code=code, failure=EVICTED, message=f"{state['reason']}: {message}", hint=hint)
    if code == _SIGKILL_EXIT_CODE:
        return TerminationMessage(exit_code=code, failure="killed", message="the container was killed (SIGKILL)")
    # what comes before it in the words of the container runtime is the way there
    said = one_line(ended.get("message") or "").rpartition("unable to start container process: ")[2]
    return of_code(code, truncate(said, 200) or f"ended with exit code {code}")


def of_code(code: int, message: str) -> TerminationMessage:
    """Last words of which only the exit code is known."""
    known = errors.from_code(code)
    return TerminationMessage(exit_code=code, failure=known.name, message=message, hint=known.hint)
