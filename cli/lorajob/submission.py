"""From what the user gave to a run in the cluster: settings, dataset, manifests, and their creation as one."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorajob import manifest, planning, shipping
from lorajob.cluster import AlreadyExists, Cluster, ClusterError, NotFound, Unreachable
from lorajob.errors import UsageError
from lorajob.manifest import DataFile, Manifests
from lorajob.planning import RunPlan
from lorajob.platform import Platform
from lorajob.shipping import LocalData
from lorajob_runtime import __version__
from lorajob_runtime import spec as specs
from lorajob_runtime.layout import DATA_PREFIX
from lorajob_runtime.pod import CACHE_FOLDER
from lorajob_runtime.spec import ModelSpec, RunSpec, StorageSpec

FIELD_MANAGER = "lorajob"


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
    is_uploaded: bool = False
    """Whether the dataset goes through storage, since it is too large for a ConfigMap."""

    @property
    def storage_uri(self) -> str:
        """Below which results go, and a large dataset."""
        return self.spec.storage.uri or self.platform.storage.uri

    @property
    def data_address(self) -> str | None:
        """Where in storage the dataset will be; None when it does not go there."""
        return self.local.address(self.storage_uri) if self.local is not None and self.is_uploaded else None


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
    local = shipping.look(spec.data) if shipping.is_local(spec.data) else None
    plan = planning.plan(spec, planning.gpu_memory(spec, platform), local)
    planning.refuse_oversize(plan)
    packed = local.packed() if local is not None else None
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
        is_uploaded=local is not None and packed is None,
    )


def upload(prepared: Prepared, cluster: Cluster) -> bool:
    """Brings a dataset that is too large for a ConfigMap into storage; one that is there stays as it is.

    Returns whether it was sent. A name that is taken is seen first, since it would be sent for nothing. Raises
    AlreadyExists, CredentialsError without a key, and what storage raises.
    """
    if prepared.local is None or not prepared.is_uploaded:
        return False
    name = prepared.spec.run_name
    if exists(cluster, name):
        raise taken(name, cluster.namespace)
    from lorajob.store import connect_store  # small data does without storage

    store = connect_store(prepared.storage_uri, DATA_PREFIX, prepared.platform, cluster)
    if shipping.is_sent(prepared.local, store):
        return False
    store.put(prepared.local.key, prepared.local.path)
    return True


def exists(cluster: Cluster, name: str) -> bool:
    """Whether there is a Job of that name."""
    try:
        cluster.get(cluster.jobs(name))
    except NotFound:
        return False
    return True


def taken(name: str, namespace: str) -> AlreadyExists:
    """The error for a name that another run has."""
    return AlreadyExists(
        f"run {name} exists already in namespace {namespace}",
        hint=f"take another --name, or `lorajob retry {name}`, or `lorajob delete {name}` first",
    )


def create(cluster: Cluster, manifests: Manifests, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Creates the Job, then what it owns; when one of these fails the Job is deleted again.

    With `dry_run` the server checks everything and keeps nothing. Returns the objects as the server has them, the Job
    first. Raises ClusterError.
    """
    query: dict[str, Any] = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    if dry_run:
        query["dryRun"] = "All"
    name = manifests.job["metadata"]["name"]
    try:
        job = cluster.post(cluster.jobs(), manifests.job, **query)
    except Unreachable as error:
        # the answer may have been lost on its way
        error.hint = f"{error.hint}; should the request have arrived, `lorajob status {name}` shows the run"
        raise
    created = [job]
    try:
        for owned in manifests.owned:
            created.append(cluster.post(_path(cluster, owned), manifest.owned_by(owned, job), **query))
    except BaseException as error:
        if not dry_run:
            _take_back(cluster, job, error)
        raise
    return created


def _take_back(cluster: Cluster, job: Mapping[str, Any], error: BaseException) -> None:
    """Deletes a Job that cannot run; what cannot be undone is told with the error that made it so."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    try:
        cluster.delete(cluster.jobs(name), uid=uid, propagation="Background")
    except NotFound:
        return
    except ClusterError as refused:
        if isinstance(error, ClusterError):
            error.message += f"; and its Job could not be removed again: {refused.message}"
            error.hint = f"remove it by hand: kubectl delete job {name} -n {cluster.namespace}"


def _build(spec: RunSpec, platform: Platform, namespace: str, data: DataFile | None) -> Manifests:
    return manifest.build(spec, platform, namespace=namespace, version=__version__, data=data)


def _path(cluster: Cluster, manifest: Mapping[str, Any]) -> str:
    return {"Service": cluster.services, "ConfigMap": cluster.config_maps}[manifest["kind"]]()


def _refuse_folder(model: ModelSpec) -> None:
    """A folder of this machine is none of the cluster's; one in the shared cache is."""
    field = "model.source" if model.source else "model.name"
    text = model.source or model.name
    if text.startswith((".", "/", "~")) and not text.startswith(f"{CACHE_FOLDER}/"):
        raise UsageError(
            f"{field} is {text!r}: pods see no folder of this machine",
            hint="give a hub's id, or put the files into S3 and give their address: s3://BUCKET/PREFIX",
        )
