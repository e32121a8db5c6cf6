"""Flags made from the fields of the spec: one a field, named, typed and explained by the field itself."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from lorajob.errors import UsageError
from lorajob.options.command import LAST_SECTION
from lorajob.spec.field_texts import ABSENT, CLUSTER_ABSENT, CLUSTER_ONLY, CLUSTER_TEXTS, SECTIONS, TEXTS
from lorajob.spec.naming import flag_of
from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import ConfigError

SHORT = {"model.name": "-m", "data.source": "-d", "storage.uri": "-s"}


class SectionOption(click.Option):
    """An option that says under which heading of the help it stands."""

    def __init__(self, *arguments: Any, section: str = LAST_SECTION, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.section = section


class FieldOption(SectionOption):
    """The flag of one field of the spec."""

    def __init__(
        self, path: str, expected: Any, default: Any, *, cluster: bool = False, texts: Mapping[str, str] | None = None
    ) -> None:
        flag = flag_of(path)
        own = (CLUSTER_TEXTS if cluster else {}) if texts is None else texts
        text = own.get(path, TEXTS[path])
        declarations = [path.replace(".", "__")]
        declarations.append(f"{flag}/--no-{flag.removeprefix('--')}" if expected is bool else flag)
        if path in SHORT:
            declarations.append(SHORT[path])
        super().__init__(
            declarations,
            section=SECTIONS[path.partition(".")[0] if "." in path else ""],
            type=None if expected is bool else FieldType(path, expected),
            default=None,
            help=f"{text} [{default_text(path, default, cluster=cluster)}]",
        )
        self.path = path


class FieldType(click.ParamType[Any]):
    """Reads the text of a flag as the type of its field."""

    def __init__(self, path: str, expected: Any) -> None:
        self.path = path
        self.expected = expected
        self.name = _metavar(path, expected)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        flag = flag_of(self.path)
        if not isinstance(value, str):
            return value
        try:
            return schema.convert(self.expected, _read(self.expected, value, flag), flag)
        except ConfigError as error:
            raise UsageError(error.message) from error

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.path in ("data.source", "storage.uri", "model.source"):
            return [CompletionItem(incomplete, type="file")]
        from lorajob_runtime.contract import catalog  # read when a shell asks for the names in it

        words = list(catalog.entries()) if self.path == "model.name" else _words(self.expected)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def options(
    *prefixes: str, without: Iterable[str] = (), cluster: bool = False, texts: Mapping[str, str] | None = None
) -> list[click.Parameter]:
    """The flags of the fields whose path begins with one of `prefixes` (all, without any).

    `cluster`: also of those that only a cluster can follow, with texts that hold there. `texts`: others in their place.
    """
    return [
        FieldOption(path, expected, default, cluster=cluster, texts=texts)
        for path, expected, default in flag_fields(*prefixes, cluster=cluster)
        if path not in frozenset(without)
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


def flag_fields(*prefixes: str, cluster: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """The fields that have a flag, of `submit` where `cluster`: (path, type, default)."""
    hidden = frozenset() if cluster else CLUSTER_ONLY
    from lorajob_runtime.contract import (
        spec,  # most commands have no field's flag, and making its classes takes a while
    )

    for path, expected, default in spec.field_paths():
        if path not in hidden and (not prefixes or path.startswith(prefixes)):
            yield path, expected, default


def given(context: click.Context) -> dict[str, Any]:
    """Path -> value of every field whose flag was on the command line."""
    found: dict[str, Any] = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        on_line = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if on_line and isinstance(parameter, FieldOption):
            found[parameter.path] = context.params[name]
    return found


def default_text(path: str, default: Any, *, cluster: bool = False) -> str:
    """What happens without the field, for a person."""
    if cluster and path in CLUSTER_ABSENT:
        return CLUSTER_ABSENT[path]
    if path in ABSENT:
        return ABSENT[path]
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


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


def _metavar(path: str, expected: Any) -> str:
    special = {
        "data.columns": "ROLE=COLUMN,…",
        "lora.targets": "auto|NAME,…",
        "data.rows": "RANGE",
        "data.evalRows": "RANGE",
    }
    if path in special:
        return special[path]
    words = _words(expected)
    if words:
        return "[" + "|".join(words) + "]"
    choices = schema.alternatives(expected)
    return "INTEGER" if int in choices else "NUMBER" if float in choices else "TEXT"
