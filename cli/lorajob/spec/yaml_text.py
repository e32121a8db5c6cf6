"""YAML 1.2 by ruamel.yaml, which takes a while to load: `specfile` imports this when it is needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from lorajob.errors import UsageError

MAX_DEPTH = 20


def mapping(text: str, path: str, form: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields in a YAML text and the line of each; `path` is its name in errors, `form` what it must be.

    An empty text has none. Raises UsageError.
    """
    try:
        _check_shape(text, path)
        value = _yaml().load(text)
        node = _yaml().compose(text)
    except MarkedYAMLError as error:
        raise UsageError(f"{_place(path, error)}: {_problem(error)}") from error
    except (YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if value is None:
        return {}, {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}:1: {form}, not {_kind(value)}")
    return value, dict(_lines(node))


def scalar(text: str) -> Any:
    """The value of one flag. Raises UsageError."""
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
