"""A platform in its file form: read with the place of each mistake, and written with every field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lorajob.platform import platform_rules as rules
from lorajob.platform.platform_config import Platform, PlatformToleration
from lorajob_runtime.contract import schema
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import API_VERSION, RunSpec

FORM = "a platform is a mapping of fields, like `storage: {uri: s3://bucket/lora}`"


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
