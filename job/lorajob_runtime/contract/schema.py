"""Strict, typed reading and writing of frozen dataclasses as plain JSON values, with camelCase keys.

Standard library only. Every fault is a ConfigError that names the field, the value and what would be right. Types are
plain ones, Literal, unions of them, and dict[str, …] and tuple[…, ...] of any of these or of dataclasses.
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
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

from lorajob_runtime.contract.errors import ConfigError, UnknownFieldError
from lorajob_runtime.contract.text import truncate

T = TypeVar("T")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a field is read where its type alone does not say it.

    `right` is said of a value of another type, in place of the type; "" says the type. With `null_is_default` a null
    stands for the default. `part_of` is the dataclass, of fields that all have defaults, of which a mapping
    that is kept as it is may hold some.
    """

    right: str = ""
    null_is_default: bool = False
    part_of: type | None = None


READING = "reading"
"""Key of a field's Reading in its metadata."""

_BY_TYPE = Reading()


def read_as(default: T, reading: Reading, metadata: Mapping[str, Any] | None = None) -> T:
    """A field of a dataclass that is read as `reading` says. `metadata` is what others want to know of it."""
    known = {READING: reading} | dict(metadata or {})
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: typing.cast(T, dict(default)), metadata=known)
    return dataclasses.field(default=default, metadata=known)


def decode(cls: type[T], value: object, path: str = "") -> T:
    """Builds the dataclass `cls` from a mapping of camelCase keys.

    Raises ConfigError for an unknown key, a wrong type, or a missing field that has no default.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'the spec'} is {_show(value)}: it must be a mapping of fields", path=path)
    fields = {camel(field.name): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            unknown = _join(path, str(key))
            raise UnknownFieldError(f"unknown field {unknown}: {_suggest(str(key), fields)}", path=unknown)
    arguments: dict[str, Any] = {}
    for key, field in fields.items():
        place = _join(path, key)
        reading = field.metadata.get(READING, _BY_TYPE)
        if key in value and not (value[key] is None and reading.null_is_default):
            arguments[field.name] = convert(hints(cls)[field.name], value[key], place, right=reading.right)
            if reading.part_of is not None:
                decode(reading.part_of, value[key], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place} is missing", path=place)
    return cls(**arguments)


def encode(value: Any, *, defaults: bool = True) -> dict[str, Any]:
    """The mapping that `decode` reads back. `defaults=False` leaves out what has its default value.

    A dataclass in a list or a mapping is always written without its defaults, as a person writes it.
    """
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            nested = encode(item, defaults=defaults)
            if nested or defaults:
                result[camel(field.name)] = nested
        elif defaults or item != _default(field):
            result[camel(field.name)] = plain(item)
    return result


def plain(value: Any) -> Any:
    """A value of a field as JSON has it."""
    if dataclasses.is_dataclass(value):
        return encode(value, defaults=False)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def convert(expected: Any, value: object, path: str, *, right: str = "") -> Any:
    """`value` as the type `expected`, or a ConfigError that says what would be right: `right` where that is given."""
    if dataclasses.is_dataclass(expected):
        return decode(typing.cast(type, expected), {} if value is None else value, path)
    for choice in alternatives(expected):
        matched, result = _match(choice, value, path)
        if matched:
            return result
    raise ConfigError(f"{path} is {_show(value)}: it must be {right or describe(expected)}", path=path)


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
    if dataclasses.is_dataclass(choice):
        return "a mapping of fields"
    if typing.get_origin(choice) is dict:
        return f"a mapping of text to {describe(typing.get_args(choice)[1])}"
    item = describe(typing.get_args(choice)[0])
    return "a list of texts" if item == "text" else f"a list, each of them {item}"


def alternatives(expected: Any) -> tuple[Any, ...]:
    """The plain types that a union stands for; any other type by itself."""
    if typing.get_origin(expected) in (Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _match(choice: Any, value: object, path: str) -> tuple[bool, Any]:
    """Whether `value` fits one plain type, and the value as that type. A bool is never a number, nor text.

    Raises ConfigError for a wrong field of a dataclass within it.
    """
    origin = typing.get_origin(choice)
    if choice is Any:
        return True, value
    if origin is Literal:
        return value in typing.get_args(choice) and not isinstance(value, bool), value
    if origin is dict:
        return _match_mapping(typing.get_args(choice)[1], value, path)
    if origin is tuple:
        return _match_list(typing.get_args(choice)[0], value, path)
    if dataclasses.is_dataclass(choice):
        return (True, decode(typing.cast(type, choice), value, path)) if isinstance(value, Mapping) else (False, None)
    if choice is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return fits, float(typing.cast(float, value)) if fits else None
    if choice is int and isinstance(value, bool):
        return False, None
    return isinstance(value, choice), value


def _match_mapping(item: Any, value: object, path: str) -> tuple[bool, Any]:
    """A mapping whose keys are text; a number is one as well, as where YAML is made JSON."""
    if not isinstance(value, Mapping):
        return False, None
    if not all(isinstance(key, str | int | float) and not isinstance(key, bool) for key in value):
        return False, None
    found = {str(key): _match(item, each, _join(path, str(key))) for key, each in value.items()}
    return all(matched for matched, _ in found.values()), {key: each for key, (_, each) in found.items()}


def _match_list(item: Any, value: object, path: str) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, None
    found = [_match(item, each, f"{path}[{number}]") for number, each in enumerate(value)]
    return all(matched for matched, _ in found), tuple(each for _, each in found)


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _show(value: object) -> str:
    return truncate("null" if value is None else repr(value) if isinstance(value, str) else value, 80)


def _suggest(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "the fields here are " + ", ".join(known)
