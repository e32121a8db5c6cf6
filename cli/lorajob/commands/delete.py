"""`lorajob delete`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lorajob.errors import USAGE, UsageError
from lorajob.options import flags, run_names
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.runs import delete, live
from lorajob.runs.delete import Removal
from lorajob_runtime.contract.errors import SUCCEEDED
from lorajob_runtime.contract.text import binary_size, plural

_AT_ONCE = 8
"""Deletions side by side: each waits for its pods to end."""


@click.command(
    "delete",
    cls=Command,
    examples=["lorajob delete zhenhuan", "lorajob delete zhenhuan first --artifacts --yes"],
)
@run_names.run_names
@flags.option(
    "--artifacts",
    section="Run",
    is_flag=True,
    help="Remove the results in storage too: checkpoints, adapter, logs. They can't be restored.",
)
@flags.option("-y", "--yes", section="Run", is_flag=True, help="Don't ask for confirmation.")
@flags.option("--no-wait", section="Run", is_flag=True, help="Don't wait until the pods have ended.")
@platform_option
@cluster_options
def command(
    names: Sequence[str], artifacts: bool, yes: bool, no_wait: bool, platform_file: Path | None, **params: Any
) -> int:
    """Remove runs from the cluster; one that is running saves a checkpoint and stops.

    Results in storage stay unless --artifacts is given: a run that is submitted again under the same name and storage
    resumes from its last checkpoint. On a terminal it asks first. If one of several can't be deleted, the others
    still are.
    """
    if artifacts and no_wait:
        raise UsageError(
            "--artifacts needs the pods to have ended, or they would write results again: leave out --no-wait"
        )
    with connect_from(params) as cluster:
        found: dict[str, Removal] = {}

        def look(name: str) -> None:
            found[name] = delete.plan(cluster, name, artifacts=artifacts, platform_file=platform_file)

        errors = run_names.tried(names, look, at_once=_AT_ONCE)
        there = [found[name] for name in dict.fromkeys(names) if name in found]
        if there and not yes and not _agrees(there):
            click.echo("nothing was deleted", err=True)
            return USAGE.code

        def remove(name: str) -> None:
            delete.remove(cluster, found[name], wait=not no_wait)
            click.echo(f"{_text(found[name])} deleted")

        try:
            errors += run_names.tried([each.name for each in there], remove, at_once=_AT_ONCE)
        except KeyboardInterrupt:
            live.say("detached: the cluster finishes what was requested; results in storage may remain")
            return SUCCEEDED.code
    run_names.raise_all(errors)
    return SUCCEEDED.code


def _agrees(found: Sequence[Removal]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("deleting needs --yes where there is no terminal to ask on")
    for each in found:
        click.echo(_text(each), err=True)
    return click.confirm("Delete this?" if len(found) == 1 else f"Delete these {len(found)}?", default=False, err=True)


def _text(each: Removal) -> str:
    parts = [f"run {each.name} ({each.status.phase})"] if each.status is not None else []
    if each.status is None and each.leftovers:
        parts.append(f"what an interrupted retry left of run {each.name}")
    if each.artifacts is not None:
        count = len(each.artifacts.entries)
        files = plural(count, "file")
        parts.append(f"{files}, {binary_size(each.artifacts.size_bytes)}, below {each.artifacts.store.uri}/")
    return " and ".join(parts)
