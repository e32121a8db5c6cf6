"""`lorajob retry`: a run's Job is deleted and created again under its name, and training resumes from storage.

The steps are written down first (`retry_record`): if a retry is interrupted, the same command continues it, and nothing
about the run is lost. The new Job says which one it replaces; another Job that got the name in the meantime is not part
of the retry, and the record is then out of date.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorajob.cluster import FIELD_MANAGER, AlreadyExists, Cluster, ClusterError, Forbidden, NotFound
from lorajob.errors import UsageError
from lorajob.runs import follow, lookup, retry_record
from lorajob.runs import status as statuses
from lorajob.runs.retry_record import RetryRecord
from lorajob.spec import resolve
from lorajob.submit import manifest
from lorajob.submit.manifest import Manifests
from lorajob.submit.manifest.data import is_mounted
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.kubernetes import RUN_LABEL
from lorajob_runtime.contract.spec import RunSpec

Object = dict[str, Any]
Build = Callable[[RunSpec], Manifests]

_TRIAL_NAMES = 5
"""So many names are tried for a Job that is only asked about: each is taken once in millions."""
_RETRIED = ("Failed", "Cancelled")
_HINTS = {
    "Succeeded": "its adapter exists: submit another run for other data or settings",
    "Suspended": "`lorajob resume {name}` resumes it from its last checkpoint",
}
_RUNS_HINT = "`lorajob cancel {name}` stops it first"


def retry(
    cluster: Cluster,
    name: str,
    *,
    build: Build,
    settings: Sequence[str] = (),
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Starts a failed or cancelled run again; returns what to tell the user, `say` takes what happens meanwhile.

    `build` makes the manifests from the spec, for the platform as it is now. `settings` are texts of --set: fields that
    a resumed run may change. Raises UsageError for a run in another phase or other fields, NotFound, ClusterError.
    """
    record, job = retry_record.read(cluster, name), _job(cluster, name)
    if record is not None and _is_under_way(cluster, job, record):
        if settings:
            raise UsageError(
                f"an interrupted retry of run {name} is finished first, with the settings that it had",
                hint=f"run `lorajob retry {name}` without --set",
            )
        if dry_run:
            return f"an interrupted retry of run {name} would continue (dry run: nothing was changed)"
        say(f"an interrupted retry of run {name} continues")
        return _carry_out(cluster, name, job, record, say)
    if job is None:
        raise lookup.missing(cluster, name)
    if record is not None and not dry_run:
        retry_record.drop(cluster, name)
    _check_phase(cluster, job)
    spec = with_settings(manifest.spec_of(job), settings)
    record = retry_record.record_of(job, build(spec))
    _dry_run(cluster, job, record)
    if dry_run:
        return f"run {name} would be retried (dry run: nothing was changed)"
    retry_record.write(cluster, name, record)
    return _carry_out(cluster, name, job, record, say)


def with_settings(spec: RunSpec, settings: Sequence[str]) -> RunSpec:
    """The spec with other values for some fields. Raises UsageError for those that would make it another run."""
    values = specs.to_dict(spec)
    for text in settings:
        values = specs.merge(values, resolve.parse_setting(text))
        try:
            changed = specs.parse(values)
        except ConfigError as error:
            raise UsageError(f"--set {text}: {error.message}") from error
        if fixed := specs.changes(spec, changed, place=True):
            raise UsageError(
                f"--set {text}: {fixed[0].field} can't change when a run resumes from its checkpoint",
                hint="submit a run of another name",
            )
    return specs.parse(values)


def _job(cluster: Cluster, name: str) -> Object | None:
    try:
        return lookup.job_of(cluster, name)
    except NotFound:
        return None


def _check_phase(cluster: Cluster, job: Object) -> None:
    run = statuses.from_job(job, cluster.now())
    if run.phase not in _RETRIED:
        hint = _HINTS.get(run.phase, _RUNS_HINT).format(name=run.name)
        raise UsageError(f"run {run.name} is {run.phase}: only a failed or cancelled run can be retried", hint=hint)


def _dry_run(cluster: Cluster, job: Object, record: RetryRecord) -> None:
    """Asks the server whether it would take every step, before the first one is made."""
    name = job["metadata"]["name"]
    _check_data(cluster, name, record.job)
    _dry_run_create(cluster, record.job)
    cluster.delete(cluster.jobs(name), uid=job["metadata"]["uid"], propagation="Foreground", dry_run=True)


def _check_data(cluster: Cluster, name: str, new_job: Object) -> None:
    """Raises UsageError where the ConfigMap that the pods would mount the dataset from is gone."""
    if is_mounted(manifest.spec_of(new_job).data.source):
        try:
            cluster.get(cluster.config_maps(manifest.data_name(name)))
        except NotFound as error:
            raise UsageError(
                f"the dataset of run {name} is gone: ConfigMap {manifest.data_name(name)} is not there",
                hint=f"`lorajob delete {name}`, and submit it again under the same name with --data",
            ) from error


def _dry_run_create(cluster: Cluster, new_job: Object) -> None:
    """Asks whether the server would take the Job. Its own name is still taken, so it gets one that no run has."""
    rng = random.SystemRandom()
    for left in reversed(range(_TRIAL_NAMES)):
        name = specs.default_name(new_job["metadata"]["name"], rng)
        other = {**new_job, "metadata": {**new_job["metadata"], "name": name}}
        try:
            cluster.post(cluster.jobs(), other, dryRun="All", fieldManager=FIELD_MANAGER, fieldValidation="Strict")
        except AlreadyExists:
            if not left:
                raise
        else:
            return


def _carry_out(cluster: Cluster, name: str, job: Object | None, record: RetryRecord, say: Callable[[str], None]) -> str:
    """Every step of a retry that was not made yet; each may be made twice."""
    if job is None or not record.is_new_job(job):
        for path in _owned_paths(cluster, name):
            _set_owner(cluster, path, None)
        if job is not None:
            _remove(cluster, job, say)
        job = _create(cluster, name, record)
    for each in record.owned:
        _create_owned(cluster, each, job)
    for path in _owned_paths(cluster, name):
        _set_owner(cluster, path, job)
    retry_record.drop(cluster, name)
    return f"run {name} retried: it resumes from its last checkpoint; `lorajob watch {name}` follows it"


def _is_under_way(cluster: Cluster, job: Object | None, record: RetryRecord) -> bool:
    """Whether what was written down is still to be done, and not out of date.

    It is so for another Job that has got the name since, and for the new one when it has ended or is being deleted: to
    go on would change nothing and pass that off as a retry.
    """
    if job is None:
        return True
    is_deleted = bool(job["metadata"].get("deletionTimestamp"))
    if job["metadata"]["uid"] == record.replaced_uid:
        return is_deleted
    return record.is_new_job(job) and not is_deleted and not statuses.from_job(job, cluster.now()).is_terminal


def _remove(cluster: Cluster, job: Object, say: Callable[[str], None]) -> None:
    """Deletes the Job and waits until its pods have stopped and it is gone."""
    name = job["metadata"]["name"]
    grace = float(job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds") or 30)
    if not job["metadata"].get("deletionTimestamp"):
        try:
            cluster.delete(cluster.jobs(name), uid=job["metadata"]["uid"], propagation="Foreground")
        except NotFound:
            return
    if (job.get("status") or {}).get("active") or (job.get("status") or {}).get("terminating"):
        say(f"waiting for the pods of run {name} to stop")
    follow.wait_until_gone(cluster, name, job["metadata"]["uid"], grace_seconds=grace, then=f"lorajob retry {name}")


def _create(cluster: Cluster, name: str, record: RetryRecord) -> Object:
    try:
        return cluster.post(cluster.jobs(), record.job, fieldManager=FIELD_MANAGER, fieldValidation="Strict")
    except AlreadyExists:
        there = lookup.job_of(cluster, name)
        if record.is_new_job(there):
            return there
        raise
    except ClusterError as error:
        error.hint = f"nothing is lost: `lorajob retry {name}` continues; {error.hint}".rstrip("; ")
        raise


def _owned_paths(cluster: Cluster, name: str) -> list[str]:
    return [cluster.services(name), cluster.config_maps(manifest.data_name(name))]


def _set_owner(cluster: Cluster, path: str, job: Object | None) -> None:
    """Makes an object of the run the Job's, or nobody's: what is nobody's stays when the Job goes."""
    owner = None if job is None else manifest.owned_by({"metadata": {}}, job)["metadata"]["ownerReferences"]
    try:
        there = cluster.get(path)
        if (there["metadata"].get("labels") or {}).get(RUN_LABEL) is not None:
            cluster.patch(path, {"metadata": {"ownerReferences": owner}}, fieldManager=FIELD_MANAGER)
    except NotFound:
        return


def _create_owned(cluster: Cluster, each: Mapping[str, Any], job: Object) -> None:
    try:
        cluster.post(
            cluster.objects(each["kind"]),
            manifest.owned_by(each, job),
            fieldManager=FIELD_MANAGER,
            fieldValidation="Strict",
        )
    except AlreadyExists:
        return


def unowned(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """(path, uid) of what an interrupted retry has left of a run and no Job owns: it would not go with one.

    What the user may not look at is left out.
    """
    found = []
    for path in (*_owned_paths(cluster, name), retry_record.path_of(cluster, name)):
        try:
            metadata = cluster.get(path)["metadata"]
        except (NotFound, Forbidden):
            continue
        if (metadata.get("labels") or {}).get(RUN_LABEL) == name and not metadata.get("ownerReferences"):
            found.append((path, metadata["uid"]))
    return found
