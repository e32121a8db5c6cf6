"""A spec in its file form: read from a mapping or JSON with all checks, and written so that it reads back the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import ConfigError, UnknownFieldError
from lorajob_runtime.contract.spec.fields import RunSpec
from lorajob_runtime.contract.spec.validation import validate

API_VERSION = "lorajob.dev/v1"


def parse(value: object) -> RunSpec:
    """The spec in a mapping as read from YAML or JSON. Raises ConfigError with the one field that is wrong."""
    if isinstance(value, Mapping):
        check_version(value)
    spec = schema.decode(RunSpec, value)
    validate(spec)
    return spec


def check_version(value: Mapping[str, Any]) -> None:
    """Raises UnknownFieldError for a spec or a platform in a form that this version of lorajob does not read."""
    version = value.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise UnknownFieldError(
            f"apiVersion is {version!r}: this version of lorajob reads {API_VERSION}", path="apiVersion"
        )


def loads(text: str) -> RunSpec:
    """The spec in a JSON text. Raises ConfigError."""
    try:
        return parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"the spec is not JSON: {error}") from error


def to_dict(spec: RunSpec, *, defaults: bool = False) -> dict[str, Any]:
    """The mapping that `parse` reads back; apiVersion is always there."""
    return {"apiVersion": spec.api_version} | schema.encode(spec, defaults=defaults)


def dumps(spec: RunSpec, *, defaults: bool = False) -> str:
    """The spec as a JSON text of one line."""
    return json.dumps(to_dict(spec, defaults=defaults), ensure_ascii=False)
