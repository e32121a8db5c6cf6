"""Every field of the spec by its dotted path, for all that goes through them: flags, files, docs, checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.spec.fields import RunSpec
from lorajob_runtime.contract.spec.option import GROUP, OPTION, Group, Option


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecField:
    """One field that a user may set. `path` is dotted and in camelCase, `attributes` lead to it in a RunSpec."""

    path: str
    attributes: tuple[str, ...]
    type: Any
    default: Any
    option: Option
    group: Group

    @property
    def flag(self) -> str:
        """`train.learningRate` -> `--learning-rate`; `report.swanlab.mode` -> `--swanlab-mode`."""
        words = self.attributes[-1:] if len(self.attributes) < 3 else self.attributes[-2:]
        return "--" + (self.option.flag or "-".join(schema.kebab(word) for word in words))

    @property
    def is_fixed(self) -> bool:
        """Whether a resumed run with another value would not be the same run."""
        return self.group.resume == self.option.resume == "fixed"

    @property
    def is_place(self) -> bool:
        """Whether it says where the run or its data are, which a retry keeps."""
        return self.option.resume == "place"

    def value_in(self, spec: RunSpec) -> Any:
        """The field's value in a spec."""
        return functools.reduce(getattr, self.attributes, spec)

    def without_it(self, *, in_cluster: bool = False) -> str:
        """What happens without the field, for a person."""
        if in_cluster and self.option.absent_in_cluster is not None:
            return self.option.absent_in_cluster
        if self.option.absent is not None:
            return self.option.absent
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


@functools.cache
def every_field() -> tuple[SpecField, ...]:
    """All of them in their order, apiVersion left out, which is of the file and not of the run."""
    return tuple(_within(RunSpec, (), Group(heading="Run", resume="may change")))


def field_at(path: str) -> SpecField:
    """The field of a path. Raises KeyError."""
    return {field.path: field for field in every_field()}[path]


def value_at(spec: RunSpec, path: str) -> Any:
    """The value of a field by its path. Raises KeyError."""
    return field_at(path).value_in(spec)


def _within(cls: Any, above: tuple[str, ...], group: Group) -> Iterator[SpecField]:
    example = cls()
    for item in dataclasses.fields(cls):
        attributes = (*above, item.name)
        expected = schema.hints(cls)[item.name]
        if GROUP in item.metadata:
            yield from _within(expected, attributes, group if above else item.metadata[GROUP])
        elif OPTION in item.metadata:
            yield SpecField(
                path=".".join(map(schema.camel, attributes)),
                attributes=attributes,
                type=expected,
                default=getattr(example, item.name),
                option=item.metadata[OPTION],
                group=group,
            )
