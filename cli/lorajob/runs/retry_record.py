"""What a retry is about to do, kept in the ConfigMap `<name>-retry` until it is done.

Between the end of the old Job and the new one there is no Job of the run at all. The record says which Job goes and
what takes its place, so that the same command can finish a retry that was interrupted.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

from lorajob.cluster import FIELD_MANAGER, AlreadyExists, Cluster, NotFound
from lorajob.runs import lookup
from lorajob.submit.manifest import Manifests
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.kubernetes import MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL

Object = dict[str, Any]

_KEY = "retry.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRecord:
    """One retry: the uid of the Job that goes, and the manifests of what takes its place, the new Job first."""

    replaced_uid: str
    manifests: tuple[Object, ...]

    @property
    def job(self) -> Object:
        """The manifest of the new Job."""
        return self.manifests[0]

    @property
    def owned(self) -> tuple[Object, ...]:
        """The manifests of what the new Job is to own."""
        return self.manifests[1:]

    def is_new_job(self, job: Object) -> bool:
        """Whether a Job is the new one: it says which Job it replaces."""
        annotations = job["metadata"].get("annotations") or {}
        return bool(annotations.get(lookup.REPLACES_ANNOTATION) == self.replaced_uid)


def record_of(job: Object, built: Manifests) -> RetryRecord:
    """The record of a retry that replaces `job` with what was built."""
    replaced_uid = job["metadata"]["uid"]
    new_job, *owned = built.all()
    annotations = {**(new_job["metadata"].get("annotations") or {}), lookup.REPLACES_ANNOTATION: replaced_uid}
    new_job = {**new_job, "metadata": {**new_job["metadata"], "annotations": annotations}}
    return RetryRecord(replaced_uid=replaced_uid, manifests=(new_job, *owned))


def path_of(cluster: Cluster, name: str) -> str:
    """The path of the ConfigMap with the record of a run's retry."""
    return cluster.config_maps(f"{name}-retry")


def read(cluster: Cluster, name: str) -> RetryRecord | None:
    """The record that an interrupted retry left; None where there is none. Raises ConfigError for an unreadable one."""
    try:
        found = cluster.get(path_of(cluster, name))
    except NotFound:
        return None
    try:
        values = json.loads(found["data"][_KEY])
        uid, manifests = values["was"], values["manifests"]
        if isinstance(uid, str) and manifests and all(each["kind"] for each in manifests):
            return RetryRecord(replaced_uid=uid, manifests=tuple(manifests))
    except (KeyError, TypeError, ValueError):
        pass
    raise ConfigError(
        f"ConfigMap {name}-retry in namespace {cluster.namespace} is not a readable record of a retry",
        hint="it held what an interrupted retry was about to do: look at it, then "
        f"`kubectl delete configmap {name}-retry -n {cluster.namespace}` and retry again, or submit the run again "
        "under its name if its Job is gone: both resume from storage",
    )


def write(cluster: Cluster, name: str, record: RetryRecord) -> None:
    """Writes the record, over an older one if there is one."""
    values = {"was": record.replaced_uid, "manifests": record.manifests}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{name}-retry",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, RUN_LABEL: name},
        },
        "data": {_KEY: json.dumps(values, ensure_ascii=False)},
    }
    try:
        cluster.post(cluster.config_maps(), body, fieldManager=FIELD_MANAGER)
    except AlreadyExists:
        cluster.patch(path_of(cluster, name), {"data": body["data"]}, fieldManager=FIELD_MANAGER)


def drop(cluster: Cluster, name: str) -> None:
    """Removes the record, if there is one."""
    with contextlib.suppress(NotFound):
        cluster.delete(path_of(cluster, name))
