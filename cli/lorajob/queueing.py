"""A run's place in a queue of Kueue: the Workload that Kueue keeps of its Job.

https://kueue.sigs.k8s.io/docs/concepts/workload/#active: one that is not active is taken out of its queue, or stopped.
"""

from __future__ import annotations

from typing import Any

from lorajob.cluster import Cluster, NotFound

_GROUP = "/apis/kueue.x-k8s.io"
_JOB_LABEL = "kueue.x-k8s.io/job-uid"


def deactivate(cluster: Cluster, job_uid: str, *, dry_run: bool = False) -> None:
    """Takes a Job out of its queue for good. Kueue would start it again when it is only suspended.

    Without Kueue there is nothing to do. Raises ClusterError.
    """
    try:
        version = cluster.get(_GROUP)["preferredVersion"]["version"]
    except NotFound:
        return
    path = f"{_GROUP}/{version}/namespaces/{cluster.namespace}/workloads"
    options: dict[str, Any] = {"fieldManager": "lorajob", "dryRun": "All" if dry_run else None}
    for each in list(cluster.pages(path, labelSelector=f"{_JOB_LABEL}={job_uid}")):
        cluster.patch(f"{path}/{each['metadata']['name']}", {"spec": {"active": False}}, **options)
