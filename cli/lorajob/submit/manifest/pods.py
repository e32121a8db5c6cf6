"""The pods of a run: one container of the platform's image, under the restricted Pod Security Standard. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from lorajob.platform import quantities
from lorajob.submit.manifest import data as datasets
from lorajob.submit.manifest import sizing
from lorajob_runtime.contract import hubs, kubernetes, schema
from lorajob_runtime.contract.spec import RunSpec

if TYPE_CHECKING:
    # its module reads YAML, which not every command that comes here does
    from lorajob.platform.platform_config import Platform

USER_ID = 1000
"""The image's user, and the group that may write to the volumes."""

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""Set by the Job controller on every pod of a Job."""

_NEAR_WEIGHT = 100
_CACHES = f"{kubernetes.WORK_FOLDER}/.cache"


def pod_spec(spec: RunSpec, platform: Platform) -> dict[str, Any]:
    """spec.template.spec of the Job."""
    several = spec.resources.nodes > 1
    optional: dict[str, Any] = {
        "subdomain": spec.run_name if several else None,
        "runtimeClassName": platform.scheduling.runtime_class_name,
        "priorityClassName": spec.resources.priority,
        "imagePullSecrets": [{"name": name} for name in platform.image_pull_secrets],
        **_placement(spec, platform),
    }
    return {
        "restartPolicy": "Never",
        "serviceAccountName": platform.service_account,
        # node 0 writes the progress of the run to its Job
        "automountServiceAccountToken": True,
        # a variable for every Service of the namespace, which no one here reads
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": platform.grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            # a cache of many large files is not gone through at every start
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in optional.items() if value},
        "containers": [_container(spec, platform)],
        "volumes": _volumes(spec, platform),
    }


def _container(spec: RunSpec, platform: Platform) -> dict[str, Any]:
    ports = (
        {"rendezvous": kubernetes.RENDEZVOUS_PORT, "link": kubernetes.COORDINATOR_PORT}
        if spec.resources.nodes > 1
        else {}
    )
    optional: dict[str, Any] = {
        "imagePullPolicy": platform.image_pull_policy,
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "envFrom": [{"secretRef": {"name": name}} for name in _secrets(platform)],
    }
    return {
        "name": kubernetes.CONTAINER,
        "image": platform.image,
        "args": [kubernetes.SPEC_FILE],
        **{key: value for key, value in optional.items() if value},
        "env": _variables(spec, platform),
        "resources": sizing.resources(spec, platform),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": kubernetes.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(spec),
    }


def _secrets(platform: Platform) -> list[str]:
    """Secrets whose keys are names of variables, each once."""
    names = (platform.secrets.storage, platform.secrets.swanlab, platform.secrets.hub)
    return list(dict.fromkeys(name for name in names if name))


def _variables(spec: RunSpec, platform: Platform) -> list[dict[str, Any]]:
    """What the runtime and its libraries read; secrets come apart from these, by reference."""
    plain: dict[str, str | None] = {
        kubernetes.JOB_VARIABLE: spec.run_name,
        "LORAJOB_CACHE": kubernetes.CACHE_FOLDER,
        "LORAJOB_WORK": kubernetes.WORK_FOLDER,
        "LORAJOB_HUBS": ",".join(platform.hubs),
        "LORAJOB_DEVICE": platform.device,
        kubernetes.REMOTE_CODE_VARIABLE: "true" if platform.limits.trust_remote_code else None,
        "LORAJOB_S3_ADDRESSING": platform.storage.addressing,
        "AWS_ENDPOINT_URL_S3": platform.storage.endpoint,
        "AWS_REGION": platform.storage.region,
        **_hub_endpoints(platform),
        # of the dashboard's address the SDK knows by itself from this one
        "SWANLAB_API_HOST": platform.swanlab.host,
        "LORAJOB_STALL_SECONDS": _seconds(platform.stall_after, "the platform's stallAfter"),
        "LORAJOB_STORAGE_PATIENCE_SECONDS": _seconds(platform.storage.patience, "the platform's storage.patience"),
        kubernetes.GRACE_VARIABLE: str(platform.grace_period_seconds),
        # the image's own folders are read-only
        "HOME": "/tmp",  # noqa: S108 the pod's own emptyDir
        "TMPDIR": "/tmp",  # noqa: S108
        "USER": "lorajob",
        "XDG_CACHE_HOME": _CACHES,
        **_hub_caches(),
        "TRITON_CACHE_DIR": f"{_CACHES}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{_CACHES}/torchinductor",
    }
    from_fields = {
        kubernetes.NAMESPACE_VARIABLE: "metadata.namespace",
        kubernetes.POD_VARIABLE: "metadata.name",
        kubernetes.JOB_UID_VARIABLE: f"metadata.labels['{kubernetes.JOB_UID_LABEL}']",
    }
    return [
        *({"name": name, "value": value} for name, value in plain.items() if value),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in from_fields.items()),
    ]


def _hub_endpoints(platform: Platform) -> dict[str, str | None]:
    with_variable = [hub for hub in hubs.MODEL_HUBS if hub.endpoint_variable]
    return {hub.endpoint_variable: getattr(platform.hub_endpoints, hub.name) for hub in with_variable}


def _hub_caches() -> dict[str, str]:
    """Where the hubs' clients keep their own files, by variable."""
    folders = {hub.cache_variable: hub.cache_folder for hub in hubs.MODEL_HUBS if hub.cache_variable}
    return {variable: f"{_CACHES}/{folder}" for variable, folder in sorted(folders.items())}


def _seconds(duration: str | None, place: str) -> str | None:
    return None if duration is None else str(quantities.seconds(duration, place))


def _volumes(spec: RunSpec, platform: Platform) -> list[dict[str, Any]]:
    annotation = f"metadata.annotations['{kubernetes.SPEC_ANNOTATION}']"
    item = {"path": PurePosixPath(kubernetes.SPEC_FILE).name, "fieldRef": {"fieldPath": annotation}}
    volumes: list[dict[str, Any]] = [
        {"name": "spec", "downwardAPI": {"items": [item]}},
        {"name": "cache", "persistentVolumeClaim": {"claimName": platform.cache.claim}},
        {"name": "work", "emptyDir": {"sizeLimit": platform.resources.work}},
        {"name": "tmp", "emptyDir": {"sizeLimit": quantities.size(sizing.SCRATCH_BYTES)}},
        # the runtime's own 64 MiB are too few for NCCL and for data loaders
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": platform.resources.shared_memory}},
    ]
    if datasets.is_mounted(spec.data.source):
        volumes.append({"name": datasets.VOLUME, "configMap": {"name": datasets.object_name(spec.run_name)}})
    return volumes


def _mounts(spec: RunSpec) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "spec", "mountPath": str(PurePosixPath(kubernetes.SPEC_FILE).parent), "readOnly": True},
        {"name": "cache", "mountPath": kubernetes.CACHE_FOLDER},
        {"name": "work", "mountPath": kubernetes.WORK_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if datasets.is_mounted(spec.data.source):
        mounts.append({"name": datasets.VOLUME, "mountPath": kubernetes.DATA_FOLDER, "readOnly": True})
    return mounts


def _placement(spec: RunSpec, platform: Platform) -> dict[str, Any]:
    """Which nodes the pods may go to, and that those of one run go near each other.

    Near is a wish: where a rack, or whatever the platform's topologyKey tells apart, has no room for all of them, the
    run starts slower instead of never.
    """
    scheduling = platform.scheduling
    types = {} if spec.resources.gpu_type is None else scheduling.gpu_types[spec.resources.gpu_type]
    placement: dict[str, Any] = {
        "nodeSelector": {**scheduling.node_selector, **types},
        "tolerations": [schema.plain(each) for each in scheduling.tolerations],
    }
    if spec.resources.nodes > 1 and scheduling.topology_key is not None:
        near = {
            "labelSelector": {"matchLabels": {JOB_NAME_LABEL: spec.run_name}},
            "topologyKey": scheduling.topology_key,
        }
        wish = {"weight": _NEAR_WEIGHT, "podAffinityTerm": near}
        placement["affinity"] = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    return placement
