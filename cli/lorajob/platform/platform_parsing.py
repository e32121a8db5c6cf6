"""Reads a platform from its file form, with the place of each mistake, and writes it with every field. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lorajob.platform import platform_rules as rules
from lorajob.platform.platform_config import Platform
from lorajob_runtime.contract import schema
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError, UnknownFieldError
from lorajob_runtime.contract.spec import RunSpec

FORM = "a platform is a mapping of fields, like `storage: {uri: s3://bucket/lora}`"


def parse(mapping: object, place: str) -> Platform:
    """The platform in a mapping as read from YAML. Raises ConfigError that begins with `place` and names the field."""
    try:
        return _parse(mapping)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message}", hint=_hint(error), path=error.path) from error


def to_dict(platform: Platform) -> dict[str, Any]:
    """The mapping that `parse` reads back, with every field."""
    values = schema.encode(platform)
    return {"apiVersion": values.pop("apiVersion")} | values


def _parse(mapping: object) -> Platform:
    if not isinstance(mapping, Mapping):
        raise ConfigError("it must be a mapping with at least image and storage.uri")
    specs.check_version(mapping)
    platform = _within_retries(schema.decode(Platform, mapping))
    rules.check(platform, to_dict(platform))
    return platform


def _within_retries(platform: Platform) -> Platform:
    """A limit below a run's usual number of retries is what a run that says nothing gets, as with its time."""
    limit, said = platform.limits.retries, platform.defaults.get("resources") or {}
    if limit is None or limit >= RunSpec().resources.retries or said.get("retries") is not None:
        return platform
    return dataclasses.replace(
        platform, defaults=specs.merge(platform.defaults, {"resources": {"retries": max(0, limit)}})
    )


def _hint(error: ConfigError) -> str:
    if isinstance(error, UnknownFieldError):
        return "it may be for a newer lorajob: update this one, or have the field corrected"
    return "the people who run the platform must correct it; docs/platform.md explains every field"
