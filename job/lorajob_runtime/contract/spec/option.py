"""What a field of the spec says of itself beside its type and default, and how a line of `fields.py` says it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.schema import Reading

T = TypeVar("T")
Command = Literal["run", "submit", "plan"]
Resume = Literal["fixed", "may change", "place"]
"""What a run that goes on may have otherwise: nothing, anything, or, for a field that says where the run or its data
are, what another start says, but not a retry, which goes on where the run is."""

OPTION, GROUP = "option", "group"
"""Keys in the metadata of a field, and of a group of fields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What a value must be within its type; `right` says it after "it must be".

    `wrong_type` says it to a value of another type, where "text" would not say enough.
    """

    right: str
    fits: Callable[[Any], bool]
    wrong_type: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One field. `help` is one or two plain sentences, and what a field without a value stands for is in `absent`."""

    help: str
    submit: str | None = None
    """Help of `submit`, and of `plan`, where it is another one."""
    plan: str | None = None
    """Help of `plan`, which reads a folder and asks no hub, where it is not that of `submit`."""
    absent: str | None = None
    absent_in_cluster: str | None = None
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The least and the most, by the words of JSON Schema."""
    rule: Rule | None = None
    right: str | None = None
    """What is said to a value out of bounds, where the bounds do not say all of it."""
    only_in_cluster: bool = False
    """Whether it means nothing on one machine: no flag of `run`, and valid in a file, so that one serves both."""
    resume: Resume = "fixed"
    flag: str | None = None
    """The flag's name where the last word of the path alone would not say enough."""
    short: str | None = None
    metavar: str | None = None
    completes: Literal["file", "model"] | None = None
    """What a shell completes, where the type does not tell."""

    def right_instead_of(self, value: Any) -> str | None:
        """What must stand in place of a wrong value; None for a right one."""
        in_bounds = all(_COMPARES[name](value, bound) for name, bound in self.bounds.items())
        if in_bounds and (self.rule is None or self.rule.fits(value)):
            return None
        return self.right or (self.rule.right if self.rule is not None else _in_words(self.bounds))

    def help_for(self, command: Command) -> str:
        """What the help of a command says."""
        texts = {"run": (), "submit": (self.submit,), "plan": (self.plan, self.submit)}[command]
        return next((text for text in texts if text is not None), self.help)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Fields that belong together. `heading` stands above their flags.

    A resumed run goes on with other values for the fields of a group, or of an option, whose `resume` is "may change".
    """

    heading: str = ""
    resume: Resume = "fixed"


def option(
    default: T,
    help: str,
    *,
    submit: str | None = None,
    plan: str | None = None,
    absent: str | None = None,
    absent_in_cluster: str | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    rule: Rule | None = None,
    right: str | None = None,
    only_in_cluster: bool = False,
    resume: Resume = "fixed",
    flag: str | None = None,
    short: str | None = None,
    metavar: str | None = None,
    completes: Literal["file", "model"] | None = None,
) -> T:
    """A field of the spec, for a dataclass of it."""
    given = {"minimum": at_least, "exclusiveMinimum": above, "maximum": at_most, "exclusiveMaximum": below}
    said = Option(
        help=help,
        submit=submit,
        plan=plan,
        absent=absent,
        absent_in_cluster=absent_in_cluster,
        bounds={name: bound for name, bound in given.items() if bound is not None},
        rule=rule,
        right=right,
        only_in_cluster=only_in_cluster,
        resume=resume,
        flag=flag,
        short=short,
        metavar=metavar,
        completes=completes,
    )
    return schema.read_as(default, Reading(right="" if rule is None else rule.wrong_type), {OPTION: said})


def group(fields: type[T], heading: str = "", *, resume: Resume = "fixed") -> T:
    """A group of fields within the spec or within another group; only those of the spec have a heading."""
    return dataclasses.field(default_factory=fields, metadata={GROUP: Group(heading=heading, resume=resume)})


_COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}
_WORDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def _in_words(bounds: Mapping[str, float]) -> str:
    if bounds.keys() == {"minimum", "maximum"}:
        return f"from {bounds['minimum']} to {bounds['maximum']}"
    return " and ".join(_WORDS[name].format(bound) for name, bound in bounds.items())
