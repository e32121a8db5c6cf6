"""Reads runs from a cluster: one with everything that is known of it, or all of them from one list of Jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lorajob.cluster import Cluster, Forbidden, NotFound
from lorajob.cluster.kinds import KINDS
from lorajob.runs import kueue
from lorajob.runs import status as statuses
from lorajob.runs.pod_status import PodStatus
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.kubernetes import MANAGED_BY, MANAGED_BY_LABEL

Job = dict[str, Any]

OF_LORAJOB = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
REPLACES_ANNOTATION = "lorajob.dev/replaces"
"""On a Job that a retry made: the uid of the one in whose place it is."""

_PODS_ASKED_ABOUT = 2
"""Of so many pods that hang the events are read: those of one run mostly hang for the same reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One run. `notes` say what could not be looked at, a line each."""

    status: RunStatus
    notes: tuple[str, ...]
    seen: datetime
    """When it was so, by the server's clock."""
    is_new: bool
    """Whether nothing of it has run yet, as far as its Job knows: no attempt before this one has left a log."""
    version: str
    """resourceVersion of its Job, from which a watch continues."""


def job_of(cluster: Cluster, name: str) -> Job:
    """The Job of a run. Raises NotFound when there is none, or when it is not a run's."""
    try:
        job = cluster.get(cluster.jobs(name))
    except NotFound as error:
        raise missing(cluster, name) from error
    if (job["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGED_BY:
        raise NotFound(f"job {name} in namespace {cluster.namespace} is not a run of lorajob")
    return job


def missing(cluster: Cluster, name: str) -> NotFound:
    """The error for a run that is not there; it says when not even the namespace is."""
    cluster.check_namespace()
    return NotFound(
        f"there is no run {name} in namespace {cluster.namespace}",
        hint="`lorajob list` shows the runs there are, `lorajob list -A` those of every namespace",
    )


def read(cluster: Cluster, name: str) -> Found:
    """One run with its pods and, where it hangs, its events or what its queue says.

    What the user may not see is left out, with a note.
    """
    job = job_of(cluster, name)
    notes: list[str] = []
    pods = _pods(cluster, job, notes)
    now = cluster.now()
    status = statuses.from_objects(job, pods, (), now)
    if status.phase == "Pending" and job["spec"].get("suspend"):
        words = _queue_words(cluster, job, notes)
        status = statuses.from_objects(job, pods, (), now, queue_words=words)
    elif status.phase == "Pending":
        events = _events(cluster, job, status.pods, notes)
        status = statuses.from_objects(job, pods, events, now)
    is_new = status.started is None and REPLACES_ANNOTATION not in (job["metadata"].get("annotations") or {})
    version = job["metadata"]["resourceVersion"]
    return Found(status=status, notes=tuple(notes), seen=now, is_new=is_new, version=version)


def every(cluster: Cluster, *, selector: str = "", all_namespaces: bool = False) -> Iterator[RunStatus]:
    """All runs, from the Jobs alone, page by page: each Job is dropped as soon as its status is made."""
    path = KINDS["Job"].path(None) if all_namespaces else cluster.jobs()
    for job in cluster.pages(path, labelSelector=",".join(part for part in (OF_LORAJOB, selector) if part)):
        yield statuses.from_job(job, cluster.now())


def _pods(cluster: Cluster, job: Job, notes: list[str]) -> list[dict[str, Any]] | None:
    # an earlier Job of the same name may have left pods behind
    selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
    try:
        return list(cluster.pages(cluster.pods(), labelSelector=selector))
    except Forbidden as error:
        notes.append(f"{error.message}: what its pods say is left out")
        return None


def _queue_words(cluster: Cluster, job: Job, notes: list[str]) -> str:
    try:
        return kueue.read_words(cluster, job["metadata"]["uid"])
    except (Forbidden, NotFound) as error:
        notes.append(f"{error.message}: why it is not its turn may be unknown")
        return ""


def _events(cluster: Cluster, job: Job, pods: Sequence[PodStatus] | None, notes: list[str]) -> list[dict[str, Any]]:
    waiting = [each.name for each in pods or () if each.state == "Waiting"]
    selectors = [f"involvedObject.name={name},involvedObject.kind=Pod" for name in waiting[:_PODS_ASKED_ABOUT]]
    if len(waiting) < int(job["spec"].get("completions") or 1):
        selectors.append(f"involvedObject.uid={job['metadata']['uid']}")
    try:
        return [each for selector in selectors for each in cluster.pages(cluster.events(), fieldSelector=selector)]
    except Forbidden as error:
        notes.append(f"{error.message}: why it waits may be unknown")
        return []
