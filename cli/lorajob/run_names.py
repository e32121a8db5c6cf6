"""The names of runs on the command line: completed from the cluster, and acted on one after another."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from lorajob.errors import UsageError
from lorajob_runtime.exits import LorajobError

COMPLETION_TIMEOUT = "2s"
"""A shell that completes a word is not held up for longer."""


_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class RunName(click.ParamType[str]):
    """The name of a run in the namespace."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # that of any object is taken, since this says only whether one can be there to look for
        if len(value) > 253 or _OBJECT_NAME.fullmatch(value) is None:
            raise UsageError(f"{value!r} is not the name of a run: it must be lower-case letters, digits and -")
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from lorajob import runs
        from lorajob.cluster_options import connect_from

        taken = ctx.params.get(param.name or "") or ()
        asked = {"kubeconfig": None, "kube_context": None, "namespace": None, **ctx.params}
        try:
            with connect_from({**asked, "request_timeout": COMPLETION_TIMEOUT}) as cluster:
                found = [status for status in runs.every(cluster) if status.name.startswith(incomplete)]
        except LorajobError:
            # a shell has no place for an error; the command itself will say it
            return []
        return [CompletionItem(each.name, help=each.phase) for each in found if each.name not in taken]


run_name = click.argument("name", type=RunName())
run_names = click.argument("names", type=RunName(), nargs=-1, required=True, metavar="NAME...")


def each(names: Sequence[str], act: Callable[[str], Any]) -> None:
    """Does the same for every run, also after one that it fails for. Raises what went wrong, at the end."""
    errors: list[LorajobError] = []
    for name in dict.fromkeys(names):
        try:
            act(name)
        except LorajobError as error:
            errors.append(error)
    if len(errors) > 1:
        raise type(errors[0])("; ".join(error.message for error in errors), hint=errors[0].hint)
    if errors:
        raise errors[0]
