"""What the people who run a cluster decided for everyone's runs: image, storage, cache, hubs, defaults and limits.

These are its fields and their defaults; docs/platform.md explains each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any, Literal

from lorajob_runtime.contract import hubs, schema
from lorajob_runtime.contract.schema import Reading
from lorajob_runtime.contract.spec import RunSpec

_PULL_SECRETS = Reading(right="a list of names of Secrets", null_is_default=True)
_TOLERATIONS = Reading(
    right="a list of tolerations, like [{key: nvidia.com/gpu, operator: Exists}]", null_is_default=True
)
_GPU_TYPES = Reading(
    right="a mapping of names to labels of nodes, like {h200: {nvidia.com/gpu.product: NVIDIA-H200}}",
    null_is_default=True,
)
_DEFAULTS = Reading(
    right="a mapping of fields of a spec, like {train: {epochs: 2}}", null_is_default=True, part_of=RunSpec
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformStorage:
    """Where results go, s3://bucket/prefix, how that S3 is reached, and how long a pod at its end waits for it.

    Without `patience` the runtime's own holds.
    """

    uri: str
    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    patience: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformCache:
    """The PersistentVolumeClaim that keeps downloaded weights."""

    claim: str = "lorajob-cache"


if TYPE_CHECKING:

    class PlatformHubEndpoints:
        """Mirrors of the hubs, a field for each; None is the hub itself."""

else:
    PlatformHubEndpoints = make_dataclass(
        "PlatformHubEndpoints",
        [(hub.name, str | None, None) for hub in hubs.MODEL_HUBS],
        frozen=True,
        kw_only=True,
        slots=True,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformSwanLab:
    """A SwanLab server of one's own; None is the public one."""

    host: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformSecrets:
    """Names of Secrets in the namespace, whose keys are the names of environment variables. None: there is none."""

    storage: str | None = "lorajob-storage"
    swanlab: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformLimits:
    """The most that a run may ask for; None is no limit. `timeout` also is what a run without one gets."""

    timeout: str = "7d"
    gpus: int | None = None
    nodes: int | None = None
    retries: int | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformResources:
    """What a pod gets where its run leaves it to the platform, as Kubernetes quantities.

    `gpu_memory` is that of the GPUs themselves, for plans of runs whose GPU type does not tell it.
    """

    cpu_per_gpu: int | float | str = 8
    memory_per_gpu: str = "64Gi"
    gpu_memory: str | None = None
    shared_memory: str = "16Gi"
    work: str = "200Gi"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformToleration:
    """One of `tolerations`, as Kubernetes has them."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformScheduling:
    """Where pods go. `gpu_types`: name for users -> labels of nodes that have it. Tolerations are Kubernetes' own."""

    gpu_resource: str = "nvidia.com/gpu"
    gpu_types: dict[str, dict[str, str]] = schema.read_as({}, _GPU_TYPES)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[PlatformToleration, ...] = schema.read_as((), _TOLERATIONS)
    topology_key: str | None = None
    runtime_class_name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """One platform. `defaults` is a part of a RunSpec in its file form; times are like 120m or 7d.

    `stall_after` is how long training may give no sign of life; None: as the runtime thinks right.
    """

    image: str
    storage: PlatformStorage
    api_version: Literal["lorajob.dev/v1"] = "lorajob.dev/v1"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = schema.read_as((), _PULL_SECRETS)
    service_account: str = "lorajob-runner"
    device: Literal["auto", "cpu"] = "auto"
    cache: PlatformCache = field(default_factory=PlatformCache)
    hubs: tuple[str, ...] = hubs.NAMES
    hub_endpoints: PlatformHubEndpoints = field(default_factory=PlatformHubEndpoints)
    swanlab: PlatformSwanLab = field(default_factory=PlatformSwanLab)
    secrets: PlatformSecrets = field(default_factory=PlatformSecrets)
    defaults: dict[str, Any] = schema.read_as({}, _DEFAULTS)
    limits: PlatformLimits = field(default_factory=PlatformLimits)
    resources: PlatformResources = field(default_factory=PlatformResources)
    scheduling: PlatformScheduling = field(default_factory=PlatformScheduling)
    stall_after: str | None = None
    grace_period_seconds: int = 120
    keep_finished: str = "7d"
