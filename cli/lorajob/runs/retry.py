"""A run started again under its name: its Job is deleted and made anew, and training goes on from storage.

Between the two there is no Job, so the new one is written down first, in the ConfigMap `<name>-retry`. Whatever
interrupts a retry, the same command takes it up where it was: nothing about the run is lost. The new Job says which
one it replaces: another that has got the name since is no part of the retry, and what was written down is out of date.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorajob.cluster import AlreadyExists, Cluster, ClusterError, Forbidden, NotFound
from lorajob.errors import UsageError
from lorajob.runs import follow, lookup
from lorajob.runs import status as statuses
from lorajob.spec import spec_file
from lorajob.submit import manifest
from lorajob.submit.manifest import Manifests
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.kubernetes import DATA_FOLDER, MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL
from lorajob_runtime.contract.spec import RunSpec

Object = dict[str, Any]
Build = Callable[[RunSpec], Manifests]

FIELD_MANAGER = "lorajob"
_TRIAL_NAMES = 5
"""So many names are tried for a Job that is only asked about: each is taken once in millions."""
_RECORD_KEY = "retry.json"
_RETRIED = ("Failed", "Cancelled")
_HINTS = {
    "Succeeded": "its adapter is there: submit another run for other data or settings",
    "Suspended": "`lorajob resume {name}` goes on from its last checkpoint",
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
    record, job = _read_record(cluster, name), _job(cluster, name)
    if record is not None and _is_under_way(cluster, job, record):
        if settings:
            raise UsageError(
                f"an interrupted retry of run {name} is finished first, with the settings that it had",
                hint=f"run `lorajob retry {name}` without --set",
            )
        if dry_run:
            return f"an interrupted retry of run {name} would go on (dry run: nothing was changed)"
        say(f"an interrupted retry of run {name} goes on")
        return _finish(cluster, name, job, record, say)
    if job is None:
        raise lookup.missing(cluster, name)
    if record is not None and not dry_run:
        _drop_record(cluster, name)
    _check_phase(cluster, job)
    spec = with_settings(manifest.spec_of(job), settings)
    record = _record(job, build(spec))
    _try(cluster, job, record)
    if dry_run:
        return f"run {name} would be retried (dry run: nothing was changed)"
    _write_record(cluster, name, record)
    return _finish(cluster, name, job, record, say)


def with_settings(spec: RunSpec, settings: Sequence[str]) -> RunSpec:
    """The spec with other values for some fields. Raises UsageError for those that would make it another run."""
    values = specs.to_dict(spec)
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: it must be FIELD=VALUE, like resources.timeout=24h")
        try:
            values = specs.merge(values, specs.nest(path.strip(), spec_file.scalar(value)))
            changed = specs.parse(values)
        except ConfigError as error:
            raise UsageError(f"--set {text}: {error.message}") from error
        fixed = [change.field for change in specs.changes(spec, changed)]
        fixed += [field for field in ("name", "storage.uri", "data.source") if _differs(spec, changed, field)]
        if fixed:
            raise UsageError(
                f"--set {text}: {fixed[0]} can't change when a run goes on from its checkpoint",
                hint="submit a run of another name",
            )
    return specs.parse(values)


def _differs(was: RunSpec, now: RunSpec, field: str) -> bool:
    return bool(specs.value_at(was, field) != specs.value_at(now, field))


def _job(cluster: Cluster, name: str) -> Object | None:
    try:
        return lookup.job_of(cluster, name)
    except NotFound:
        return None


def _check_phase(cluster: Cluster, job: Object) -> None:
    run = statuses.from_job(job, cluster.now())
    if run.phase not in _RETRIED:
        hint = _HINTS.get(run.phase, _RUNS_HINT).format(name=run.name)
        raise UsageError(f"run {run.name} is {run.phase}: only a failed or cancelled run is retried", hint=hint)


def _try(cluster: Cluster, job: Object, record: Object) -> None:
    """Asks the server whether it would take every step, before the first one is made."""
    name = job["metadata"]["name"]
    anew = record["manifests"][0]
    _check_data(cluster, name, anew)
    _try_create(cluster, anew)
    cluster.delete(cluster.jobs(name), uid=job["metadata"]["uid"], propagation="Foreground", dry_run=True)


def _check_data(cluster: Cluster, name: str, anew: Object) -> None:
    if DATA_FOLDER + "/" in json.dumps(anew["spec"]["template"]["metadata"]["annotations"]):
        try:
            cluster.get(cluster.config_maps(manifest.data_name(name)))
        except NotFound as error:
            raise UsageError(
                f"the dataset of run {name} is gone: ConfigMap {manifest.data_name(name)} is not there",
                hint=f"`lorajob delete {name}`, and submit it again under the same name with --data",
            ) from error


def _try_create(cluster: Cluster, anew: Object) -> None:
    """Asks whether the server would take the Job. Its own name is still taken, so it gets one that no run has."""
    rng = random.SystemRandom()
    for left in reversed(range(_TRIAL_NAMES)):
        other = {**anew, "metadata": {**anew["metadata"], "name": specs.default_name(anew["metadata"]["name"], rng)}}
        try:
            cluster.post(cluster.jobs(), other, dryRun="All", fieldManager=FIELD_MANAGER, fieldValidation="Strict")
        except AlreadyExists:
            if not left:
                raise
        else:
            return


def _finish(cluster: Cluster, name: str, job: Object | None, record: Object, say: Callable[[str], None]) -> str:
    """Every step of a retry that was not made yet; each may be made twice."""
    if job is None or not _is_new(job, record):
        for path in _owned_paths(cluster, name):
            _own(cluster, path, None)
        if job is not None:
            _remove(cluster, job, say)
        job = _create(cluster, name, record)
    for each in record["manifests"][1:]:
        _put(cluster, each, job)
    for path in _owned_paths(cluster, name):
        _own(cluster, path, job)
    _drop_record(cluster, name)
    return f"run {name} retried: it goes on from its last checkpoint; `lorajob watch {name}` shows how"


def _is_under_way(cluster: Cluster, job: Object | None, record: Object) -> bool:
    """Whether what was written down is still to be done, and not out of date.

    It is so for another Job that has got the name since, and for the new one when it has ended or is being deleted: to
    go on would change nothing and pass that off as a retry.
    """
    if job is None:
        return True
    is_deleted = bool(job["metadata"].get("deletionTimestamp"))
    if job["metadata"]["uid"] == record["was"]:
        return is_deleted
    return _is_new(job, record) and not is_deleted and not statuses.from_job(job, cluster.now()).is_terminal


def _is_new(job: Object, record: Object) -> bool:
    return bool((job["metadata"].get("annotations") or {}).get(lookup.REPLACES_ANNOTATION) == record["was"])


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


def _create(cluster: Cluster, name: str, record: Object) -> Object:
    try:
        return cluster.post(
            cluster.jobs(), record["manifests"][0], fieldManager=FIELD_MANAGER, fieldValidation="Strict"
        )
    except AlreadyExists:
        there = lookup.job_of(cluster, name)
        if _is_new(there, record):
            return there
        raise
    except ClusterError as error:
        error.hint = f"nothing is lost: `lorajob retry {name}` goes on; {error.hint}".rstrip("; ")
        raise


def _owned_paths(cluster: Cluster, name: str) -> list[str]:
    return [cluster.services(name), cluster.config_maps(manifest.data_name(name))]


def _own(cluster: Cluster, path: str, job: Object | None) -> None:
    """Makes an object of the run the Job's, or nobody's: what is nobody's stays when the Job goes."""
    owner = None if job is None else manifest.owned_by({"metadata": {}}, job)["metadata"]["ownerReferences"]
    try:
        there = cluster.get(path)
        if (there["metadata"].get("labels") or {}).get(RUN_LABEL) is not None:
            cluster.patch(path, {"metadata": {"ownerReferences": owner}}, fieldManager=FIELD_MANAGER)
    except NotFound:
        return


def _put(cluster: Cluster, each: Mapping[str, Any], job: Object) -> None:
    path = {"Service": cluster.services, "ConfigMap": cluster.config_maps}[each["kind"]]()
    try:
        cluster.post(path, manifest.owned_by(each, job), fieldManager=FIELD_MANAGER, fieldValidation="Strict")
    except AlreadyExists:
        return


def unowned(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """(path, uid) of what an interrupted retry has left of a run and no Job owns: it would not go with one.

    What the user may not look at is left out.
    """
    found = []
    for path in (*_owned_paths(cluster, name), _record_path(cluster, name)):
        try:
            metadata = cluster.get(path)["metadata"]
        except (NotFound, Forbidden):
            continue
        if (metadata.get("labels") or {}).get(RUN_LABEL) == name and not metadata.get("ownerReferences"):
            found.append((path, metadata["uid"]))
    return found


def _record_path(cluster: Cluster, name: str) -> str:
    return cluster.config_maps(f"{name}-retry")


def _record(job: Object, built: Manifests) -> Object:
    """What is written down: the uid of the Job that goes, and everything that takes its place."""
    was = job["metadata"]["uid"]
    anew, *others = built.all()
    annotations = {**(anew["metadata"].get("annotations") or {}), lookup.REPLACES_ANNOTATION: was}
    return {"was": was, "manifests": [{**anew, "metadata": {**anew["metadata"], "annotations": annotations}}, *others]}


def _drop_record(cluster: Cluster, name: str) -> None:
    with contextlib.suppress(NotFound):
        cluster.delete(_record_path(cluster, name))


def _read_record(cluster: Cluster, name: str) -> Object | None:
    """What an interrupted retry wrote down; None where there is nothing. Raises ConfigError for what can't be read."""
    try:
        found = cluster.get(_record_path(cluster, name))
    except NotFound:
        return None
    try:
        record: Object = json.loads(found["data"][_RECORD_KEY])
        if isinstance(record["was"], str) and all(each["kind"] for each in record["manifests"]) and record["manifests"]:
            return record
    except (KeyError, TypeError, ValueError):
        pass
    raise ConfigError(
        f"ConfigMap {name}-retry in namespace {cluster.namespace} is no record of a retry that can be read",
        hint="what an interrupted retry was about to do stood there: look at it, then "
        f"`kubectl delete configmap {name}-retry -n {cluster.namespace}` and retry again, or submit the run again "
        "under its name if its Job is gone: either goes on from storage",
    )


def _write_record(cluster: Cluster, name: str, record: Object) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{name}-retry",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, RUN_LABEL: name},
        },
        "data": {_RECORD_KEY: json.dumps(record, ensure_ascii=False)},
    }
    try:
        cluster.post(cluster.config_maps(), body, fieldManager=FIELD_MANAGER)
    except AlreadyExists:
        cluster.patch(_record_path(cluster, name), {"data": body["data"]}, fieldManager=FIELD_MANAGER)
