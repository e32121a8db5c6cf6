"""A run in a queue of Kueue: reads why its Workload waits, and takes it out of the queue.

https://kueue.sigs.k8s.io/docs/concepts/workload/#active: one that is not active is taken out of its queue, or stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob.cluster import FIELD_MANAGER, Cluster, NotFound
from lorajob_runtime.contract.text import one_line

_GROUP = "/apis/kueue.x-k8s.io"
_JOB_LABEL = "kueue.x-k8s.io/job-uid"


def deactivate(cluster: Cluster, job_uid: str, *, dry_run: bool = False) -> None:
    """Takes a Job out of its queue for good. Kueue would start it again when it is only suspended.

    Without Kueue there is nothing to do. Raises ClusterError.
    """
    path = _path(cluster)
    if path is None:
        return
    options: dict[str, Any] = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
    for each in list(cluster.pages(path, labelSelector=f"{_JOB_LABEL}={job_uid}")):
        cluster.patch(f"{path}/{each['metadata']['name']}", {"spec": {"active": False}}, **options)


def read_words(cluster: Cluster, job_uid: str) -> str:
    """Why it is not a Job's turn, in Kueue's own words; empty where it says nothing. Raises ClusterError."""
    path = _path(cluster)
    if path is None:
        return "this cluster has no Kueue, and only Kueue would start it"
    found = list(cluster.pages(path, labelSelector=f"{_JOB_LABEL}={job_uid}"))
    if not found:
        return "Kueue has not accepted it yet"
    return words(max(found, key=lambda each: str(each["metadata"].get("creationTimestamp"))))


def words(workload: Mapping[str, Any]) -> str:
    """Why a Workload does not run, by its conditions; empty where they do not say.

    https://kueue.sigs.k8s.io/docs/concepts/workload/ and the conditions of its API.
    """
    state = workload.get("status") or {}
    conditions = {each.get("type"): each for each in state.get("conditions") or ()}
    if (workload.get("spec") or {}).get("active") is False:
        return _joined("it was removed from the queue", _message(conditions.get("Evicted")))
    put_back = ""
    evicted = conditions.get("Evicted") or {}
    if evicted.get("status") == "True":
        preempted = conditions.get("Preempted") or {}
        cause = preempted if preempted.get("status") == "True" else evicted
        put_back = _joined(f"it was put back into the queue ({evicted.get('reason') or 'Evicted'})", _message(cause))
    reserved = conditions.get("QuotaReserved") or {}
    if reserved.get("status") == "True":
        checks = [each for each in state.get("admissionChecks") or () if each.get("state") != "Ready"]
        told = ", ".join(_joined(str(each.get("name")), _message(each)) for each in checks)
        return f"it has its quota and waits for admission checks: {told}" if told else put_back
    return "; ".join(part for part in (_message(reserved), put_back) if part)


def _path(cluster: Cluster) -> str | None:
    """The path of the namespace's Workloads; None where there is no Kueue."""
    try:
        version = cluster.get(_GROUP)["preferredVersion"]["version"]
    except NotFound:
        return None
    return f"{_GROUP}/{version}/namespaces/{cluster.namespace}/workloads"


def _message(condition: Mapping[str, Any] | None) -> str:
    return one_line(str((condition or {}).get("message") or "")).rstrip(".")


def _joined(text: str, message: str) -> str:
    return f"{text}: {message}" if message else text
