"""A Kubernetes cluster as plain JSON over HTTP: how it is found, logged in to and asked.

Nothing here knows of runs, specs or platforms, and nothing else in the command line speaks to an API server.

    cluster = connect()          # as kubectl does: --kubeconfig, KUBECONFIG, ~/.kube/config, or the pod's own
    job = cluster.get(cluster.jobs("zhenhuan"))
    for job in cluster.pages(cluster.jobs(), labelSelector="…"): …

Importing `kubernetes` takes longer than any request, so it is loaded only for logins by other programs.
"""

from __future__ import annotations

from lorajob.cluster.client import Cluster, connect
from lorajob.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    QuotaExceeded,
    Refused,
    Unauthenticated,
    Unreachable,
    run_exists,
)
from lorajob.cluster.kinds import FIELD_MANAGER
from lorajob_runtime.contract.backoff import Pauses

__all__ = [
    "FIELD_MANAGER",
    "AlreadyExists",
    "Cluster",
    "ClusterError",
    "Conflict",
    "Forbidden",
    "Gone",
    "NotFound",
    "Pauses",
    "QuotaExceeded",
    "Refused",
    "Unauthenticated",
    "Unreachable",
    "connect",
    "run_exists",
]
