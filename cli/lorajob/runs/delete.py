"""`lorajob delete`: removes the Job of a run with everything it owns, and its results in storage on request."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorajob.cluster import Cluster, NotFound
from lorajob.errors import UsageError
from lorajob.platform import platform_lookup
from lorajob.platform.storage import connect_store
from lorajob.runs import follow, lookup, retry
from lorajob.runs import status as statuses
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract import layout
from lorajob_runtime.contract import spec as specs

if TYPE_CHECKING:
    from lorajob_runtime.storage.store import Entry, Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifacts:
    """The results of a run, as listed."""

    store: Store
    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """What deleting one run would remove. Of `status`, `leftovers` and `artifacts` at least one is there."""

    name: str
    status: RunStatus | None
    """None where there is no Job of it."""
    leftovers: tuple[tuple[str, str], ...]
    """(path, uid) of what would not go with the Job, since an interrupted retry has taken it out of its hands."""
    artifacts: Artifacts | None
    """None where they are to stay."""


def plan(cluster: Cluster, name: str, *, artifacts: bool, platform_file: Path | None) -> Removal:
    """Looks up what there is of a run. Raises NotFound when there is nothing, UsageError, and what storage raises."""
    if not specs.valid_name(name):
        # it becomes a prefix of keys: none may lead to the results of others
        raise UsageError(f"{name!r} is not the name of a run: it must be lower-case letters, digits and -")
    status: RunStatus | None = None
    missing: NotFound | None = None
    try:
        status = statuses.from_job(lookup.job_of(cluster, name), cluster.now())
    except NotFound as error:
        missing = error
    leftovers = tuple(retry.unowned(cluster, name))
    if missing is not None and not artifacts and not leftovers:
        raise missing
    listed = _artifacts(cluster, name, status, platform_file) if artifacts else None
    if missing is not None and not leftovers and not (listed and listed.entries):
        raise missing
    return Removal(name=name, status=status, leftovers=leftovers, artifacts=listed)


def remove(cluster: Cluster, removal: Removal, *, wait: bool = True) -> None:
    """Deletes the Job and what is no longer its, with `wait` until its pods are gone too, and then the results.

    Results are only removed after the pods are gone: they would write them again. Raises NotFound, ClusterError,
    TimedOutError when the pods outlive their grace period, and what storage raises.
    """
    if removal.status is not None:
        # another run may have got the name meanwhile
        job = cluster.delete(cluster.jobs(removal.name), uid=removal.status.uid, propagation="Foreground")
        if wait or removal.artifacts is not None:
            follow.wait_until_gone(cluster, removal.name, removal.status.uid, grace_seconds=_grace_seconds(job))
    for path, uid in removal.leftovers:
        with contextlib.suppress(NotFound):
            cluster.delete(path, uid=uid)
    if removal.artifacts is not None:
        # what its pods wrote before they ended is there by now
        store = removal.artifacts.store
        store.delete(entry.key for entry in in_order(store.list()))


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Files in the order in which they go: what makes a checkpoint one is first, so that none is left in part.

    Whose they are is last: a removal that breaks off leaves nothing that is nobody's.
    """
    return sorted(entries, key=lambda entry: (entry.key == layout.OWNER, not entry.key.endswith(layout.MANIFEST)))


def _artifacts(cluster: Cluster, name: str, status: RunStatus | None, platform_file: Path | None) -> Artifacts:
    from lorajob_runtime.storage import ownership

    loaded = platform_lookup.load(cluster, platform_file)
    uri = loaded.platform.storage.uri
    if status is not None and status.storage_uri is not None:
        uri = status.storage_uri
    store = connect_store(uri, name, loaded.platform, cluster)
    ownership.check_owner(store, cluster.namespace)
    return Artifacts(store=store, entries=tuple(store.list()))


def _grace_seconds(job: Mapping[str, Any]) -> float:
    """How long the pods of a Job may take to end. What is deleted at once is answered with a Status instead."""
    template = (job.get("spec") or {}).get("template") or {}
    return float((template.get("spec") or {}).get("terminationGracePeriodSeconds") or 0)
