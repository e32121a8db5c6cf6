"""`lorajob submit`: prepares a run, uploads its dataset, and creates all of its objects or none."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorajob.cluster import FIELD_MANAGER, Cluster, ClusterError, NotFound, Unreachable, run_exists
from lorajob.errors import UsageError
from lorajob.plan import gpus, run_plan
from lorajob.plan.run_plan import RunPlan
from lorajob.platform.platform_config import Platform
from lorajob.submit import dataset, manifest
from lorajob.submit.dataset import LocalData
from lorajob.submit.manifest import DataFile, Manifests
from lorajob_runtime import __version__
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import InterruptedByUserError
from lorajob_runtime.contract.layout import DATA_PREFIX
from lorajob_runtime.contract.spec import ModelSpec, RunSpec, StorageSpec
from lorajob_runtime.models import preflight

_UNDO_SECONDS = 10.0
"""So long may each request take that undoes a submit: somebody waits who has pressed Ctrl-C."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything that a submit will do, decided and checked, with nothing done yet."""

    spec: RunSpec
    """As the user meant it: `data.source` is the place on this machine."""
    platform: Platform
    manifests: Manifests
    plan: RunPlan
    local: LocalData | None = None
    """The dataset, where it is a file here."""
    goes_to_storage: bool = False
    """Whether the dataset goes through storage, since it is too large for a ConfigMap."""

    @property
    def storage_uri(self) -> str:
        """Below which results go, and a large dataset."""
        return self.spec.storage.uri or self.platform.storage.uri

    @property
    def data_address(self) -> str | None:
        """Where in storage the dataset will be; None when it does not go there."""
        return self.local.address(self.storage_uri) if self.local is not None and self.goes_to_storage else None


def prepare(spec: RunSpec, platform: Platform, *, namespace: str, rng: random.Random) -> Prepared:
    """Completes a spec, looks at its dataset and makes the manifests; contacts nobody.

    Raises UsageError for what this platform cannot run or its GPUs cannot hold, and DataError for a dataset that no run
    could use.
    """
    spec = dataclasses.replace(
        spec,
        name=spec.name or specs.default_name(spec.model.name, rng),
        storage=StorageSpec(uri=spec.storage.uri or platform.storage.uri),
    )
    _refuse_folder(spec.model)
    local = dataset.inspect(spec.data) if dataset.is_local(spec.data) else None
    plan = run_plan.plan(spec, gpus.find(spec, platform), local)
    run_plan.refuse_oversize(plan)
    packed = local.as_config_map() if local is not None else None
    sent = spec
    if local is not None and packed is None:
        source = local.address(spec.storage.uri or "")
        sent = dataclasses.replace(spec, data=dataclasses.replace(spec.data, source=source))
    return Prepared(
        spec=spec,
        platform=platform,
        manifests=_build(sent, platform, namespace, packed),
        plan=plan,
        local=local,
        goes_to_storage=local is not None and packed is None,
    )


def upload(prepared: Prepared, cluster: Cluster) -> bool:
    """Brings a dataset that is too large for a ConfigMap into storage; one that is there stays as it is.

    Returns whether it was sent. A name that is taken is seen first, since it would be sent for nothing. Raises
    AlreadyExists, CredentialsError without a key, and what storage raises.
    """
    if prepared.local is None or not prepared.goes_to_storage:
        return False
    name = prepared.spec.run_name
    if exists(cluster, name):
        raise run_exists(name, cluster.namespace)
    from lorajob.platform.storage import connect_store  # small data does without storage

    store = connect_store(prepared.storage_uri, DATA_PREFIX, prepared.platform, cluster)
    return dataset.upload(prepared.local, store)


def exists(cluster: Cluster, name: str) -> bool:
    """Whether there is a Job of that name."""
    try:
        cluster.get(cluster.jobs(name))
    except NotFound:
        return False
    return True


def create(cluster: Cluster, manifests: Manifests, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Creates the Job, then what it owns; when one of these fails, or is interrupted, the Job is deleted again.

    With `dry_run` the server checks everything and keeps nothing. Returns the objects as the server has them, the Job
    first. Raises ClusterError, and InterruptedByUserError for a Ctrl-C, which say what may be left.
    """
    query: dict[str, Any] = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    if dry_run:
        query["dryRun"] = "All"
    # what tells this Job from another of its name when no answer comes, and changes nothing in it
    maker = f"{FIELD_MANAGER}-submit-{os.urandom(8).hex()}"
    created: list[dict[str, Any]] = []
    try:
        created.append(cluster.post(cluster.jobs(), manifests.job, **{**query, "fieldManager": maker}))
        for owned in manifests.owned:
            created.append(cluster.post(cluster.objects(owned["kind"]), manifest.owned_by(owned, created[0]), **query))
    except BaseException as error:
        # one that the server has refused is not there; one that it did not answer may be
        if dry_run or not (created or isinstance(error, Unreachable | KeyboardInterrupt)):
            raise
        name = manifests.job["metadata"]["name"]
        _add_to_error(error, _undo(cluster, name, maker, created[0] if created else None), name)
        raise
    return created


@dataclass(frozen=True, slots=True)
class _UndoResult:
    """What is left of a submit that came to nothing, as an addition to its error."""

    words: str = ""
    hint: str = ""


def _undo(cluster: Cluster, name: str, maker: str, job: Mapping[str, Any] | None) -> _UndoResult:
    """Deletes the Job of a submit, which is the one that `maker` made; `job` is what the server answered, if it did."""
    cluster.limit_timeout(_UNDO_SECONDS)
    try:
        found = job if job is not None else cluster.get(cluster.jobs(name))
        if job is None and maker not in [entry.get("manager") for entry in found["metadata"].get("managedFields", [])]:
            return _UndoResult()
        cluster.delete(cluster.jobs(name), uid=found["metadata"]["uid"], propagation="Background")
    except (ClusterError, KeyboardInterrupt) as trouble:
        if job is None:
            # also where it is not there: the server may still be at it
            return _UndoResult(hint=f"if the request has arrived, `lorajob status {name}` shows the run")
        if isinstance(trouble, NotFound):
            return _UndoResult()
        why = trouble.message if isinstance(trouble, ClusterError) else "that was interrupted too"
        return _UndoResult(
            f"and its Job could not be removed again: {why}",
            f"remove it by hand: kubectl delete job {name} -n {cluster.namespace}",
        )
    return _UndoResult("its Job was removed again" if job is None else "")


def _add_to_error(error: BaseException, left: _UndoResult, name: str) -> None:
    """Adds what is left to an error. Raises InterruptedByUserError in place of an interrupt."""
    if isinstance(error, KeyboardInterrupt):
        message = f"interrupted while run {name} was created"
        raise InterruptedByUserError("; ".join(filter(None, (message, left.words))), hint=left.hint) from error
    if isinstance(error, ClusterError):
        error.message = "; ".join(filter(None, (error.message, left.words)))
        error.hint = "; ".join(filter(None, (error.hint, left.hint)))


def _build(spec: RunSpec, platform: Platform, namespace: str, data: DataFile | None) -> Manifests:
    return manifest.build(spec, platform, namespace=namespace, version=__version__, data=data)


def _refuse_folder(model: ModelSpec) -> None:
    """A folder of this machine is none of the cluster's; one in the shared cache is."""
    field = "model.source" if model.source else "model.name"
    text = model.source or model.name
    if preflight.folder_of(model) is not None and not run_plan.is_in_cache(model):
        raise UsageError(
            f"{field} is {text!r}: pods can't see a folder of this machine",
            hint="give a hub's id, or put the files into S3 and give their address: s3://BUCKET/PREFIX",
        )
