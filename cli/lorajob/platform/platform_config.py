"""What the people who run a cluster decided for everyone's runs: image, storage, cache, hubs, defaults and limits.

It comes from one place: a file that the user names, the ConfigMap of the namespace, or a file in the user's own
configuration. docs/platform.md explains every field.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorajob.errors import UsageError
from lorajob.platform import platform_rules as rules
from lorajob.spec import spec_file
from lorajob_runtime.contract import schema
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import API_VERSION, RunSpec

if TYPE_CHECKING:
    from lorajob.cluster import Cluster

CONFIG_MAP = "lorajob-platform"
CONFIG_KEY = "platform.yaml"
FILE_VARIABLE = "LORAJOB_PLATFORM"
OWN_FILE = Path("lorajob/platform.yaml")
"""Below XDG_CONFIG_HOME, else ~/.config."""
FORM = "a platform is a mapping of fields, like `storage: {uri: s3://bucket/lora}`"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformHubEndpoints:
    """Mirrors of the hubs; None is the hub itself."""

    modelscope: str | None = None
    hf: str | None = None


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
    """What one of `tolerations` may hold; it is handed on as it stands."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformScheduling:
    """Where pods go. `gpu_types`: name for users -> labels of nodes that have it. Tolerations are Kubernetes' own."""

    gpu_resource: str = "nvidia.com/gpu"
    gpu_types: dict[str, dict[str, str]] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
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
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = "lorajob-runner"
    device: Literal["auto", "cpu"] = "auto"
    cache: PlatformCache = field(default_factory=PlatformCache)
    hubs: tuple[str, ...] = ("modelscope", "hf")
    hub_endpoints: PlatformHubEndpoints = field(default_factory=PlatformHubEndpoints)
    swanlab: PlatformSwanLab = field(default_factory=PlatformSwanLab)
    secrets: PlatformSecrets = field(default_factory=PlatformSecrets)
    defaults: dict[str, Any] = field(default_factory=dict)
    limits: PlatformLimits = field(default_factory=PlatformLimits)
    resources: PlatformResources = field(default_factory=PlatformResources)
    scheduling: PlatformScheduling = field(default_factory=PlatformScheduling)
    stall_after: str | None = None
    grace_period_seconds: int = 120
    keep_finished: str = "7d"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPlatform:
    """A platform and where it comes from, for a person."""

    platform: Platform
    source: str


def parse(mapping: object, place: str) -> Platform:
    """The platform in a mapping as read from YAML. Raises ConfigError that begins with `place` and names the field."""
    try:
        return _parse(mapping)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message}", hint=_hint(error)) from error


def to_dict(platform: Platform) -> dict[str, Any]:
    """The mapping that `parse` reads back, with every field."""
    values = schema.encode(platform)
    values["scheduling"]["tolerations"] = list(values["scheduling"]["tolerations"])
    return {"apiVersion": values.pop("apiVersion")} | values


def load(
    cluster: Cluster | None, file: Path | str | None = None, variables: Mapping[str, str] | None = None
) -> LoadedPlatform:
    """The platform in force: `file`, else LORAJOB_PLATFORM, else the namespace's ConfigMap, else the user's own file.

    Without a cluster there is no ConfigMap. Raises ConfigError when there is none or it is broken, UsageError when a
    file that is named is not there, and a ClusterError when the cluster does not give it, or has no such namespace.
    """
    variables = os.environ if variables is None else variables
    named = named_file(file, variables)
    if named is not None:
        return _from_file(named)
    if cluster is not None and (found := _from_config_map(cluster)) is not None:
        return found
    home = Path(variables.get("XDG_CONFIG_HOME") or Path(variables.get("HOME") or Path.home()) / ".config")
    own = home / OWN_FILE
    if own.exists():
        return _from_file(own)
    if cluster is not None:
        cluster.check_namespace()
    looked = f"ConfigMap {CONFIG_MAP} in namespace {cluster.namespace}" if cluster is not None else "cluster"
    raise ConfigError(
        f"no platform is configured: there is no {looked}, and no {own}",
        hint="have the chart installed in the namespace, or give a file with --platform; see docs/platform.md",
    )


def named_file(file: Path | str | None, variables: Mapping[str, str] | None = None) -> Path | None:
    """The file that the user names, by --platform or LORAJOB_PLATFORM: with one, no cluster is asked."""
    named = file or (os.environ if variables is None else variables).get(FILE_VARIABLE)
    return Path(named).expanduser() if named else None


def _parse(mapping: object) -> Platform:
    if not isinstance(mapping, Mapping):
        raise ConfigError("it must be a mapping with at least image and storage.uri")
    version = mapping.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise ConfigError(f"apiVersion is {version!r}: this version of lorajob reads {API_VERSION}")
    plain, free = _apart(mapping)
    platform = _within_retries(_with(schema.decode(Platform, plain), free))
    rules.check(platform, to_dict(platform))
    return platform


def _from_file(path: Path) -> LoadedPlatform:
    try:
        values = spec_file.load(path, FORM).values
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UsageError(
                f"the platform file {path} does not exist", hint=f"correct --platform or {FILE_VARIABLE}"
            ) from error
        raise ConfigError(error.message, hint="correct the file; docs/platform.md explains every field") from error
    return LoadedPlatform(platform=parse(values, str(path)), source=str(path))


def _from_config_map(cluster: Cluster) -> LoadedPlatform | None:
    from lorajob.cluster import NotFound

    try:
        config_map = cluster.get(cluster.config_maps(CONFIG_MAP))
    except NotFound:
        return None
    place = f"ConfigMap {CONFIG_MAP} in namespace {cluster.namespace}"
    data = config_map.get("data") or {}
    if CONFIG_KEY not in data:
        there = f"it has {', '.join(data)}" if data else "it is empty"
        raise ConfigError(f"{place} has no key {CONFIG_KEY}: {there}", hint="have the chart installed again")
    place = f"{place}, {CONFIG_KEY}"
    try:
        values = spec_file.loads(data[CONFIG_KEY], place, FORM).values
    except UsageError as error:
        raise ConfigError(error.message, hint="who installed the chart must correct it") from error
    return LoadedPlatform(platform=parse(values, place), source=place)


def _apart(mapping: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mapping without the fields of free form, and those, checked. A null stands for the default."""
    plain = dict(mapping)
    free: dict[str, Any] = {}
    for key in ("imagePullSecrets", "defaults"):
        free[key] = _checked(key, key, plain.pop(key, None))
    scheduling = plain.get("scheduling")
    if isinstance(scheduling, Mapping):
        plain["scheduling"] = inner = dict(scheduling)
        for key in ("gpuTypes", "tolerations"):
            free[key] = _checked(key, f"scheduling.{key}", inner.pop(key, None))
    return plain, {key: value for key, value in free.items() if value is not None}


def _with(platform: Platform, free: Mapping[str, Any]) -> Platform:
    scheduling = dataclasses.replace(
        platform.scheduling,
        gpu_types=free.get("gpuTypes", {}),
        tolerations=free.get("tolerations", ()),
    )
    return dataclasses.replace(
        platform,
        image_pull_secrets=free.get("imagePullSecrets", ()),
        defaults=free.get("defaults", {}),
        scheduling=scheduling,
    )


def _within_retries(platform: Platform) -> Platform:
    """A limit below a run's usual number of retries is what a run that says nothing gets, as with its time."""
    limit, said = platform.limits.retries, platform.defaults.get("resources") or {}
    if limit is None or limit >= RunSpec().resources.retries or said.get("retries") is not None:
        return platform
    return dataclasses.replace(
        platform, defaults=specs.merge(platform.defaults, {"resources": {"retries": max(0, limit)}})
    )


def _checked(key: str, path: str, value: object) -> Any:
    """A field of free form in its own type; None for null."""
    if value is None:
        return None
    if key == "imagePullSecrets" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if key == "tolerations" and isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            schema.decode(PlatformToleration, item, f"{path}[{number}]")
        return tuple(dict(item) for item in value)
    if key == "gpuTypes" and isinstance(value, Mapping) and all(_is_labels(labels) for labels in value.values()):
        return {str(name): dict(labels) for name, labels in value.items()}
    if key == "defaults" and isinstance(value, Mapping):
        schema.decode(RunSpec, value, key)
        if value.get("name") is not None:
            raise ConfigError("defaults.name is set: every run needs a name of its own")
        return dict(value)
    raise ConfigError(f"{path} is {value!r}: it must be {_FORMS[key]}")


def _is_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)


_FORMS = {
    "imagePullSecrets": "a list of names of Secrets",
    "tolerations": "a list of tolerations, like [{key: nvidia.com/gpu, operator: Exists}]",
    "gpuTypes": "a mapping of names to labels of nodes, like {h200: {nvidia.com/gpu.product: NVIDIA-H200}}",
    "defaults": "a mapping of fields of a spec, like {train: {epochs: 2}}",
}


def _hint(error: ConfigError) -> str:
    if error.message.startswith(("unknown field", "apiVersion")):
        return "it may be made for a newer lorajob: update this one, or have the field corrected"
    return "who runs the platform must correct it; docs/platform.md explains every field"
