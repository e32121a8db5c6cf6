"""What of the chart is made from other parts: `platform.defaults` in its schema from the spec, its table from both."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lorajob.spec import spec_file
from lorajob_runtime.contract import schema as fields
from lorajob_runtime.contract import spec

CHART = Path(__file__).resolve().parents[2] / "charts/lorajob"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
_TABLE_HEAD = "| value | default | |\n|---|---|---|\n"


def documents() -> dict[Path, str]:
    """Schema and README of the chart as they should be."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["$defs"]["runSpec"] = _run_spec()
    before, head, _ = README.read_text("utf-8").partition(_TABLE_HEAD)
    return {
        SCHEMA: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        README: before + head + "".join(_rows(schema)),
    }


def _rows(schema: dict[str, Any]) -> Iterator[str]:
    """The table of values: the README ends with it."""
    values = spec_file.load(CHART / "values.yaml").values
    for path, described in leaves(schema):
        default: Any = values
        for key in path.split("."):
            default = default.get(key) if isinstance(default, dict) else None
        shown = default if isinstance(default, str) else json.dumps(default)
        cell = "" if default in (None, "") else f"`{shown}`"
        yield f"| `{path}` | {cell} | {described} |\n"


def leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, description) of every value, whatever is below `defaults` left out."""
    for key, below in section["properties"].items():
        if "properties" in below:
            yield from leaves(below, f"{prefix}{key}.")
        elif key != "global":
            yield f"{prefix}{key}", below.get("description", "")


def _run_spec() -> dict[str, Any]:
    """JSON schema of a partial RunSpec."""
    whole = _section()
    for field in spec.every_field():
        at = whole
        *sections, key = field.path.split(".")
        for section in sections:
            at = at["properties"].setdefault(section, _section())
        at["properties"][key] = {**_type(field.type), **field.option.bounds, "description": field.option.help}
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
