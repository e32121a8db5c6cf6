"""Spec files: YAML 1.2 read with care, since they may come from anyone, and written so that they read back the same."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from lorajob.errors import UsageError

MAX_SIZE_BYTES = 1 << 20
MAX_DEPTH = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecFile:
    """The fields in a file, and on which line each one stands."""

    path: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def place(self, field_path: str) -> str:
        """`spec.yaml:7` for a field that the file has, else `spec.yaml`."""
        line = self.lines.get(field_path)
        return f"{self.path}:{line}" if line else self.path


def load(path: Path) -> SpecFile:
    """Reads a spec file. Raises UsageError with file and line for what is not a YAML mapping."""
    try:
        if path.stat().st_size > MAX_SIZE_BYTES:
            raise UsageError(f"{path} has more than {MAX_SIZE_BYTES >> 20} MiB: it is not a spec")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist", hint="`lorajob init` writes a lorajob.yaml to start from") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    return loads(text, str(path))


def loads(text: str, path: str) -> SpecFile:
    """The fields in a YAML text; `path` is its name in errors. An empty text has none."""
    try:
        _check_shape(text, path)
        value = _yaml().load(text)
        node = _yaml().compose(text)
    except MarkedYAMLError as error:
        raise UsageError(f"{_place(path, error)}: {_problem(error)}") from error
    except (YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if value is None:
        return SpecFile(path=path, values={})
    if not isinstance(value, dict):
        raise UsageError(f"{path}:1: a spec is a mapping of fields, like `train: {{epochs: 3}}`, not {_kind(value)}")
    return SpecFile(path=path, values=value, lines=dict(_lines(node)))


def scalar(text: str) -> Any:
    """The value of a flag or of `--set`, read as in a file: `1e-4`, `5:50`, `[q_proj, v_proj]`, `null`."""
    try:
        _check_shape(text, "value")
        return _yaml().load(text)
    except (YAMLError, ValueError) as error:
        problem = _problem(error) if isinstance(error, MarkedYAMLError) else str(error)
        raise UsageError(f"{text!r} is not a YAML value: {problem}") from error


def dumps(value: dict[str, Any]) -> str:
    """A mapping as YAML in the order of its keys; whole numbers are written without a point."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_plain(value), stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_shape(text: str, path: str) -> None:
    """Refuses what could grow without bound when it is read: aliases of aliases, and nesting without end."""
    depth = 0
    for event in _yaml().parse(text):
        if isinstance(event, AliasEvent):
            raise UsageError(f"{path}:{event.start_mark.line + 1}: *{event.anchor} is an alias: write the value out")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UsageError(f"{path}:{event.start_mark.line + 1}: nested deeper than {MAX_DEPTH} levels")


def _lines(node: Node, prefix: str = "") -> Iterator[tuple[str, int]]:
    if not isinstance(node, MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, ScalarNode):
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _lines(value, path + ".")


def _place(path: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{path}:{mark.line + 1}" if mark is not None else path


def _problem(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    if "'\\t'" in problem:
        return "a tab: YAML is indented with spaces"
    return problem.partition(" with value")[0] if problem.startswith("found duplicate key") else problem


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"the text {value!r:.40}" if isinstance(value, str) else repr(value)
