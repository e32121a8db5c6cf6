"""The part of the chart's values schema that is made from the spec itself: what `platform.defaults` may hold."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any, Literal

from lorajob.fieldtexts import TEXTS
from lorajob_runtime import fields, spec

FILE = Path(__file__).resolve().parents[2] / "charts/lorajob/values.schema.json"


def text() -> str:
    """The schema as it should be."""
    schema = json.loads(FILE.read_text("utf-8"))
    schema["$defs"]["runSpec"] = run_spec()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def run_spec() -> dict[str, Any]:
    """JSON schema of a partial RunSpec."""
    whole = _section()
    for path, expected, _ in spec.field_paths():
        at = whole
        *sections, key = path.split(".")
        for section in sections:
            at = at["properties"].setdefault(section, _section())
        at["properties"][key] = {**_type(expected), "description": TEXTS[path]}
    return whole


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _type(expected: Any) -> dict[str, Any]:
    choices = fields.alternatives(expected)
    literals = [word for choice in choices if typing.get_origin(choice) is Literal for word in typing.get_args(choice)]
    kinds = [_KINDS.get(typing.get_origin(choice) or choice) for choice in choices]
    plain: list[dict[str, Any]] = [kind for kind in kinds if kind is not None]
    if literals:
        plain.append({"enum": literals})
    return plain[0] if len(plain) == 1 else {"anyOf": plain}


_KINDS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    dict: {"type": "object", "additionalProperties": {"type": "string"}},
    tuple: {"type": "array", "minItems": 1, "items": {"type": "string"}},
}
