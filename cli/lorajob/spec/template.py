"""The commented spec file that `lorajob init` writes. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract import schema, spec
from lorajob_runtime.contract.spec import SpecField

WIDTH = 110

_OTHER_THAN_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML 1.1 or 1.2 reads as something else. What else it does begins with no letter: 1e5, 0x1f, .inf, ~."""

_HEAD = """\
# What `lorajob run` and `lorajob submit` do in this folder. A flag wins over this file, --set over both.
# A field that is commented out shows its default.
apiVersion: lorajob.dev/v1
"""


def render(model: str, data: str | None, recipe: Mapping[str, Any]) -> str:
    """A spec file with every field: those that are given or in the recipe active, the rest commented out."""
    active = spec.merge(recipe, {"model": {"name": model}}, {"data": {"source": data}} if data else {})
    lines: list[str] = []
    open_sections: tuple[str, ...] = ()
    for field in spec.every_field():
        *sections, key = field.path.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != tuple(sections[: depth + 1]):
                lines += [""] * (depth == 0) + ["  " * depth + f"{section}:"]
        open_sections = tuple(sections)
        indent = "  " * len(sections)
        value = _at(active, field.path)
        lines += _comment(field, indent)
        shown = _yaml(field.default if value is None else value)
        lines.append(f"{indent}{key}: {shown}" if value is not None else f"{indent}# {key}: {shown}")
    return _HEAD + "\n".join(lines) + "\n"


def _comment(field: SpecField, indent: str) -> list[str]:
    said = field.option
    there = "" if said.absent_in_cluster is None else f", on a cluster {said.absent_in_cluster}"
    absent = "" if said.absent is None else f" Without it: {said.absent}{there}."
    choices = schema.describe(field.type)
    allowed = f" {choices[0].upper()}{choices[1:]}." if choices.startswith("one of ") else ""
    cluster = " Only on a cluster." if said.only_in_cluster else ""
    return textwrap.wrap(
        said.help + allowed + absent + cluster,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


def _yaml(value: Any) -> str:
    """A value on one line. JSON is YAML; plain words need no quotes."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, str) and value.isalnum() and value[0].isalpha() and value.lower() not in _OTHER_THAN_TEXT:
        return value
    # YAML takes no character as it is that can't be seen
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


def _at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
