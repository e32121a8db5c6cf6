"""How commands look: help in sections with an example that works, and groups that load a command when it is called."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

LAST_SECTION = "Options"
"""Heading of what belongs under no other."""

SIGPIPE_EXIT_CODE = 141
"""128 + SIGPIPE: how a shell shows that the reader of our output went away."""


class Command(click.Command):
    """A command whose help shows examples, and its options under headings in the order in which they first appear."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **keywords: Any) -> None:
        keywords.setdefault("context_settings", CONTEXT_SETTINGS)
        super().__init__(*arguments, **keywords)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections.setdefault(getattr(parameter, "section", LAST_SECTION), []).append(record)
        for heading, records in sorted(sections.items(), key=lambda item: item[0] == LAST_SECTION):
            with formatter.section(heading):
                formatter.write_dl(records)


class LazyGroup(click.Group):
    """A group that knows its commands by name and summary only; the module is loaded when the command is called.

    `lazy` is command name -> (module that has it as `command`, one-line summary).
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, tuple[str, str]], **keywords: Any) -> None:
        keywords.setdefault("context_settings", CONTEXT_SETTINGS)
        super().__init__(*arguments, **keywords)
        self.lazy = dict(lazy)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module = importlib.import_module(self.lazy[cmd_name][0])
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.lazy and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=self.lazy, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; ends quietly when the reader of the output has gone away, as in `lorajob models | head`."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # what is still buffered would fail again when the interpreter closes stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(SIGPIPE_EXIT_CODE) from None
        return result


def refuse_repeated(command: click.Command, ctx: click.Context, args: Sequence[str]) -> None:
    """Raises click.UsageError for an option that takes one value and is given several times.

    click itself takes the last value and says nothing of the others.
    """
    if ctx.resilient_parsing:
        return
    options = {}
    for option in command.get_params(ctx):
        if (
            isinstance(option, click.Option)
            and option.name
            and not (option.multiple or option.count or option.is_eager)
        ):
            options[option.name] = copy.copy(option)
            options[option.name].multiple = True
    others = [each for each in command.get_params(ctx) if each.name not in options]
    # the same options, but each of them collects its values
    collecting = click.Command(command.name, params=[*options.values(), *others], add_help_option=False)
    given, _, _ = collecting.make_parser(ctx).parse_args(list(args))
    for name, option in options.items():
        values = given.get(name, [])
        if len(values) > 1:
            times = "twice" if len(values) == 2 else f"{len(values)} times"
            flag = "/".join(max(each, key=len) for each in (option.opts, option.secondary_opts) if each)
            said = "" if option.is_flag else f": {', '.join(map(str, values))}; it takes one value"
            raise click.UsageError(f"{flag} is given {times}{said}", ctx=ctx)
