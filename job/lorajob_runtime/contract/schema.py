"""Strict, typed reading and writing of frozen dataclasses as plain JSON values, with camelCase keys.

Standard library only. Every fault is a ConfigError that names the field, the value and what would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import sys
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, Literal, TypeVar, Union

from lorajob_runtime.contract.errors import ConfigError

T = TypeVar("T")

_MAY_BE = "may be"


def camel(name: str) -> str:
    """`learning_rate` -> `learningRate`: the name of a field in files."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def kebab(name: str) -> str:
    """`learningRate` or `learning_rate` -> `learning-rate`: the name of a field's flag."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"-\1", name).replace("_", "-").lower()


def hints(cls: type) -> dict[str, Any]:
    """Field name -> resolved type of a dataclass."""
    return _hints(cls)


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def decode(cls: type[T], value: object, path: str = "") -> T:
    """Builds the dataclass `cls` from a mapping of camelCase keys.

    Raises ConfigError for an unknown key, a wrong type, or a missing field that has no default.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'the spec'} is {_show(value)}: it must be a mapping of fields")
    fields = {camel(field.name): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise ConfigError(f"unknown field {_join(path, str(key))}: {_suggest(str(key), fields)}")
    arguments: dict[str, Any] = {}
    for key, field in fields.items():
        if key in value:
            expected, may_be = hints(cls)[field.name], field.metadata.get(_MAY_BE, "")
            arguments[field.name] = convert(expected, value[key], _join(path, key), may_be=may_be)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, key)} is missing")
    return cls(**arguments)


def encode(value: Any, *, defaults: bool = True) -> dict[str, Any]:
    """The mapping that `decode` reads back. `defaults=False` leaves out what has its default value."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            nested = encode(item, defaults=defaults)
            if nested or defaults:
                result[camel(field.name)] = nested
            continue
        if not defaults and item == _default(field):
            continue
        result[camel(field.name)] = list(item) if isinstance(item, tuple) else item
    return result


def written(default: T, may_be: str) -> T:
    """A field that is text, for which YAML may take a number; `may_be` says what text would be right."""
    return dataclasses.field(default=default, metadata={_MAY_BE: may_be})


def convert(expected: Any, value: object, path: str, *, may_be: str = "") -> Any:
    """`value` as the type `expected`, or a ConfigError that says what would be right: `may_be` where that is given."""
    if dataclasses.is_dataclass(expected):
        return decode(typing.cast(type, expected), {} if value is None else value, path)
    for choice in alternatives(expected):
        matched, result = _match(choice, value)
        if matched:
            return result
    raise ConfigError(f"{path} is {_show(value)}: it must be {may_be or describe(expected)}")


def describe(expected: Any) -> str:
    """What a user may write for a type: `a whole number`, `one of auto, bf16, fp32`, …"""
    words: list[str] = []
    literals: list[str] = []
    for choice in alternatives(expected):
        if typing.get_origin(choice) is Literal:
            literals += [str(word) for word in typing.get_args(choice)]
        else:
            words.append(_DESCRIPTIONS.get(choice) or _describe_container(choice))
    if literals:
        words.insert(0, literals[0] if len(literals) == 1 else "one of " + ", ".join(literals))
    return " or ".join(dict.fromkeys(words))


_DESCRIPTIONS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
}


def _describe_container(choice: Any) -> str:
    return "a mapping of text to text" if typing.get_origin(choice) is dict else "a list of texts"


def alternatives(expected: Any) -> tuple[Any, ...]:
    """The plain types that a union stands for; any other type by itself."""
    if typing.get_origin(expected) in (Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _match(choice: Any, value: object) -> tuple[bool, Any]:
    """Whether `value` fits one plain type, and the value as that type. A bool is never a number, nor text."""
    origin = typing.get_origin(choice)
    if origin is Literal:
        return value in typing.get_args(choice) and not isinstance(value, bool), value
    if origin is dict:
        fits = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        return fits, dict(typing.cast(Mapping[str, str], value)) if fits else None
    if origin is tuple:
        fits = isinstance(value, list | tuple) and bool(value) and all(isinstance(item, str) for item in value)
        return fits, tuple(typing.cast(list[str], value)) if fits else None
    if choice is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return fits, float(typing.cast(float, value)) if fits else None
    if choice is int and isinstance(value, bool):
        return False, None
    return isinstance(value, choice), value


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _show(value: object) -> str:
    text = "null" if value is None else f"{value!r}" if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggest(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "the fields here are " + ", ".join(known)
