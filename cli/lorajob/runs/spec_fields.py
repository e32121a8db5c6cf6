"""The few fields of a run's spec that a list of runs shows, read from its Job without the spec's own checks. Pure.

A list reads them thousands of times, and must not fail on a spec that a newer version wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract import kubernetes as contract
from lorajob_runtime.contract.text import one_line

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecFields:
    """What a list shows of a spec; None for a field that is not given, or that is no text."""

    model: str | None
    data: str | None
    gpus: int
    """GPUs a node."""
    storage_uri: str | None
    """Without a slash at its end."""


def read(job_spec: Object) -> SpecFields:
    """The fields of the spec that is an annotation of the Job's pod template."""
    annotations = (job_spec["template"].get("metadata") or {}).get("annotations") or {}
    try:
        given = json.loads(annotations.get(contract.SPEC_ANNOTATION, "{}"))
    except ValueError:
        given = {}
    if not isinstance(given, dict):
        given = {}
    return SpecFields(
        model=_text(given, "model", "name"),
        data=_text(given, "data", "source"),
        gpus=_count(given, "resources", "gpus"),
        storage_uri=(_text(given, "storage", "uri") or "").rstrip("/") or None,
    )


def _text(given: Object, section: str, field: str) -> str | None:
    value = _value(given, section, field)
    if not isinstance(value, str):
        return None
    # the usual case first: a list does this thousands of times
    return value if value.isascii() and value.isprintable() else one_line(value)


def _count(given: Object, section: str, field: str) -> int:
    value = _value(given, section, field)
    return value if isinstance(value, int) else 1


def _value(given: Object, section: str, field: str) -> object:
    group = given.get(section)
    return group.get(field) if isinstance(group, dict) else None
