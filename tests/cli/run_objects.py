"""Jobs, pods and events as a cluster of Kubernetes 1.35 shows them, shortened to what `status` reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract.kubernetes import Progress, TerminationMessage

NAME = "zhenhuan"
IMAGE = "registry.example/lorajob:0.1.0"
FIRST_POD = "zhenhuan-0-vpghk"
SECOND_POD = "zhenhuan-0-x7k2d"
BEGAN = datetime(2026, 11, 21, 9, 0, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(minutes=10)

SPEC = {
    "apiVersion": "lorajob.dev/v1",
    "name": NAME,
    "model": {"name": "qwen3-8b"},
    "data": {"source": "/etc/lorajob/data/huanhuan.json.gz"},
    "resources": {"gpus": 4},
    "storage": {"uri": "s3://models/lora"},
}


def at(seconds: float) -> str:
    """A time as Kubernetes writes it, so many seconds after the run began."""
    return (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str = "True", *, reason: str = "", message: str = "", seconds: float = 300) -> Any:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(seconds)}


def job(
    status: dict[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    reported: float | None = None,
    changed: float | None = 5,
    nodes: int = 1,
    suspend: bool = False,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A Job. `reported`, `changed`: seconds at which the server saw the progress and the status written last."""
    notes = dict(annotations or {})
    managed = [{"manager": "lorajob", "operation": "Update", "time": at(0), "fieldsV1": {"f:spec": {}}}]
    if progress is not None:
        notes[kubernetes.PROGRESS_ANNOTATION] = progress.dumps()
        fields = {"f:metadata": {"f:annotations": {f"f:{kubernetes.PROGRESS_ANNOTATION}": {}}}}
        seconds = reported if reported is not None else progress.time - BEGAN.timestamp()
        managed.append({"manager": "python", "operation": "Update", "time": at(seconds), "fieldsV1": fields})
    if changed is not None:
        controller = {"manager": "kube-controller-manager", "subresource": "status", "operation": "Update"}
        managed.append({**controller, "time": at(changed), "fieldsV1": {"f:status": {"f:active": {}}}})
    return {
        "metadata": {
            "name": NAME,
            "namespace": "team",
            "uid": "e80feb07-ebd7-4d38-9d4f-2582f8ed92c0",
            "creationTimestamp": at(-5),
            "annotations": notes,
            "labels": {
                kubernetes.MANAGED_BY_LABEL: kubernetes.MANAGED_BY,
                kubernetes.RUN_LABEL: NAME,
                **(labels or {}),
            },
            "managedFields": managed,
        },
        "spec": {
            "suspend": suspend,
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 3,
            "activeDeadlineSeconds": 86400,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": kubernetes.CONTAINER,
                            "operator": "In",
                            "values": [10, 11, 12, 14],
                        },
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"annotations": {kubernetes.SPEC_ANNOTATION: json.dumps(SPEC)}},
                "spec": {"containers": [{"name": kubernetes.CONTAINER, "image": IMAGE}]},
            },
        },
        "status": status or {},
    }


def running_pod(name: str = FIRST_POD, *, node: int = 0, began: float = 3, **changes: Any) -> dict[str, Any]:
    state = {"running": {"startedAt": at(began)}}
    return _pod(name, node, "Running", {"name": kubernetes.CONTAINER, "ready": True, "state": state}, **changes)


def unreachable_pod(name: str = FIRST_POD, *, node: int = 0) -> dict[str, Any]:
    """A pod whose node has died: Kubernetes leaves all as it was and takes back the condition Ready alone."""
    found = running_pod(name, node=node)
    found["status"]["conditions"] = [condition("ContainersReady"), condition("Ready", "False")]
    return found


def with_sidecar(found: dict[str, Any], *, runs: bool = True, name: str = "istio-proxy") -> dict[str, Any]:
    """The pod with a container that others put into it."""
    state = {"running": {"startedAt": at(4)}} if runs else {"terminated": {"exitCode": 0, "finishedAt": at(300)}}
    found["status"]["containerStatuses"].append({"name": name, "ready": runs, "state": state})
    if runs:
        found["status"]["phase"] = "Running"
    return found


def disrupted(found: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """The pod with the condition by which Kubernetes says that it, and not the pod, ended it."""
    found["status"].setdefault("conditions", []).append(condition("DisruptionTarget", reason=reason, message=message))
    return found


def uncounted(found: dict[str, Any]) -> dict[str, Any]:
    """The pod as it is before the Job controller has looked at how it ended."""
    found["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    return found


def ended_pod(name: str = FIRST_POD, *, node: int = 0) -> dict[str, Any]:
    """A pod that has done its work."""
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": at(3), "finishedAt": at(290)}
    return _pod(name, node, "Succeeded", {"name": kubernetes.CONTAINER, "state": {"terminated": ended}})


def waiting_pod(
    reason: str = "ContainerCreating", message: str = "", *, name: str = FIRST_POD, node: int = 0
) -> dict[str, Any]:
    waiting = {"reason": reason} | ({"message": message} if message else {})
    return _pod(name, node, "Pending", {"name": kubernetes.CONTAINER, "state": {"waiting": waiting}})


def unscheduled_pod(message: str, *, name: str = FIRST_POD, node: int = 0) -> dict[str, Any]:
    found = _pod(name, node, "Pending", None)
    found["status"]["conditions"] = [
        condition("PodScheduled", "False", reason="Unschedulable", message=message, seconds=1)
    ]
    del found["spec"]["nodeName"]
    return found


def failed_pod(
    name: str = FIRST_POD,
    *,
    node: int = 0,
    code: int = 1,
    reason: str = "Error",
    words: TerminationMessage | None = None,
    message: str = "",
    ended: float = 200,
) -> dict[str, Any]:
    text = words.dumps() if words else message
    terminated = {"exitCode": code, "reason": reason, "startedAt": at(3), "finishedAt": at(ended)}
    state = {"terminated": terminated | ({"message": text} if text else {})}
    return _pod(
        name, node, "Failed", {"name": kubernetes.CONTAINER, "state": state}, created=3 if name == FIRST_POD else 30
    )


def stopping_pod(name: str = FIRST_POD, *, node: int = 0) -> dict[str, Any]:
    found = running_pod(name, node=node)
    found["metadata"]["deletionTimestamp"] = at(120)
    return found


def _pod(name: str, node: int, phase: str, container: dict[str, Any] | None, *, created: float = 0) -> dict[str, Any]:
    index = {"batch.kubernetes.io/job-completion-index": str(node)}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": index,
            "creationTimestamp": at(created),
        },
        "spec": {"nodeName": "test-node", "containers": [{"name": kubernetes.CONTAINER, "image": IMAGE}]},
        "status": {"phase": phase, "containerStatuses": [container] if container else []},
    }


def event(kind: str, name: str, reason: str, message: str, *, seconds: float = 30) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.1", "creationTimestamp": at(seconds)},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": at(seconds),
        "count": 3,
    }


def progress(pod_name: str = FIRST_POD, *, seconds: float = 540, phase: str = "train", **changes: Any) -> Progress:
    """What the pod reported so many seconds after the run began."""
    known: dict[str, Any] = {
        "step": 300,
        "total_steps": 700,
        "loss": 1.25,
        "tokens_per_second": 4321.0,
        "seconds_left": 750.0,
        "checkpoint": 300,
    }
    if phase != "train":
        known = {}
    return Progress(pod=pod_name, attempt=1, time=BEGAN.timestamp() + seconds, phase=phase, **(known | changes))
