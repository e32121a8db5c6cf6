"""Flags made from the fields of the spec: one a field, named, typed and explained by the field itself."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from lorajob.errors import UsageError
from lorajob.options.command import LAST_SECTION
from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import ConfigError

if TYPE_CHECKING:
    # most commands have no field's flag, and making the spec's classes takes a while
    from lorajob_runtime.contract.spec import Command, SpecField


class SectionOption(click.Option):
    """An option that says under which heading of the help it stands."""

    def __init__(self, *arguments: Any, section: str = LAST_SECTION, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.section = section


class FieldOption(SectionOption):
    """The flag of one field of the spec."""

    def __init__(self, field: SpecField, command: Command) -> None:
        is_switch = field.type is bool
        declarations = [field.path.replace(".", "__")]
        declarations.append(f"{field.flag}/--no-{field.flag.removeprefix('--')}" if is_switch else field.flag)
        if field.option.short is not None:
            declarations.append(field.option.short)
        super().__init__(
            declarations,
            section=field.group.heading,
            type=None if is_switch else FieldType(field),
            default=None,
            help=f"{field.option.help_for(command)} [{field.without_it(in_cluster=command != 'run')}]",
        )
        self.path = field.path


class FieldType(click.ParamType[Any]):
    """Reads the text of a flag as the type of its field."""

    def __init__(self, field: SpecField) -> None:
        self.field = field
        self.name = field.option.metavar or _metavar(field.type)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        expected, flag = self.field.type, self.field.flag
        try:
            return schema.convert(expected, _read(expected, value, flag), flag)
        except ConfigError as error:
            raise UsageError(error.message) from error

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.field.option.completes == "file":
            return [CompletionItem(incomplete, type="file")]
        from lorajob_runtime.contract import catalog  # read when a shell asks for the names in it

        words = list(catalog.entries()) if self.field.option.completes == "model" else _words(self.field.type)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def options(*prefixes: str, without: Iterable[str] = (), command: Command = "run") -> list[click.Parameter]:
    """The flags of the fields whose path begins with one of `prefixes` (all, without any), with the help of `command`.

    Only those of `submit` and `plan` have the fields that only a cluster can follow.
    """
    excluded = frozenset(without)
    return [
        FieldOption(field, command) for field in flag_fields(*prefixes, command=command) if field.path not in excluded
    ]


def option(*declarations: str, section: str = LAST_SECTION, **keywords: Any) -> Callable[[Callable[..., Any]], Any]:
    """`click.option` with a heading."""
    return click.option(*declarations, cls=SectionOption, section=section, **keywords)


files_option = option(
    "-f",
    "--file",
    "files",
    section="Run",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Spec file; of several the later ones win, field by field. [./lorajob.yaml if there is one]",
)

settings_option = option(
    "--set",
    "settings",
    section="Run",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field by its path in the file, e.g. train.maxSteps=8. Wins over flags; the later ones win.",
)


def flag_fields(*prefixes: str, command: Command) -> Iterator[SpecField]:
    """The fields that have a flag of a command."""
    from lorajob_runtime.contract import spec

    for field in spec.every_field():
        is_followed = command != "run" or not field.option.only_in_cluster
        if is_followed and (not prefixes or field.path.startswith(prefixes)):
            yield field


def given(context: click.Context) -> dict[str, Any]:
    """Path -> value of every field whose flag was on the command line."""
    found: dict[str, Any] = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        on_line = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if on_line and isinstance(parameter, FieldOption):
            found[parameter.path] = context.params[name]
    return found


def _read(expected: Any, text: str, flag: str) -> object:
    """The text of a flag as plain data: split for lists and mappings, text as it is, else as in a spec file."""
    choices = schema.alternatives(expected)
    if str in choices or text in _literals(expected):
        return text
    if any(typing.get_origin(choice) is tuple for choice in choices):
        return [part.strip() for part in text.split(",") if part.strip()]
    if any(typing.get_origin(choice) is dict for choice in choices):
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(role.strip() and equals and column.strip() for role, equals, column in pairs):
            comma = (
                " (a column with a comma in its name: --set 'data.columns={input: \"a, b\"}')" if "," in text else ""
            )
            raise ConfigError(f"{flag} is {text!r}: it must be ROLE=COLUMN,ROLE=COLUMN,…{comma}")
        read = {role.strip(): column.strip() for role, _, column in pairs}
        if len(read) < len(pairs):
            raise ConfigError(f"{flag} is {text!r}: it must name each role once")
        return read
    from lorajob.spec import spec_file  # the YAML parser is loaded when a number is read

    return spec_file.scalar(text)


def _literals(expected: Any) -> list[str]:
    """The words of a type that stand for themselves."""
    literals = (choice for choice in schema.alternatives(expected) if typing.get_origin(choice) is Literal)
    return [str(word) for choice in literals for word in typing.get_args(choice)]


def _words(expected: Any) -> list[str]:
    """Every word that may be given for a type that allows only a few."""
    return _literals(expected) + (["true", "false"] if bool in schema.alternatives(expected) else [])


def _metavar(expected: Any) -> str:
    words = _words(expected)
    if words:
        return "[" + "|".join(words) + "]"
    choices = schema.alternatives(expected)
    return "INTEGER" if int in choices else "NUMBER" if float in choices else "TEXT"
