"""`lorajob logs`."""

from __future__ import annotations

import sys
from typing import Any

import click

from lorajob.errors import UsageError
from lorajob.logs import log_sources
from lorajob.logs.log_sources import LogQuery
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.options.run_names import run_name
from lorajob.platform import quantities
from lorajob.runs import live
from lorajob_runtime.contract.errors import SUCCEEDED
from lorajob_runtime.contract.text import escape_controls


@click.command(
    "logs",
    cls=Command,
    examples=[
        "lorajob logs zhenhuan -f",
        "lorajob logs zhenhuan --rank 3 --since 10m",
        "lorajob logs zhenhuan --attempt 1 --tail 50",
    ],
)
@run_name
@flags.option("-f", "--follow", section="Log", is_flag=True, help="Continue until the run ends, across its retries.")
@flags.option(
    "--rank",
    section="Log",
    metavar="R|all",
    default="all",
    help="Only this training process, counted over all nodes. [all of them and the supervisors]",
)
@flags.option("--node", section="Log", type=click.IntRange(min=0), metavar="K", help="Only this node of the run. [all]")
@flags.option("-p", "--previous", section="Log", is_flag=True, help="The attempt before the last one.")
@flags.option(
    "--attempt",
    section="Log",
    type=click.IntRange(min=1),
    metavar="N",
    help="This attempt, from storage. [the last one, from its pods]",
)
@flags.option(
    "--since", section="Log", metavar="TIME", help="Only lines newer than this, like 10m; for logs of pods only."
)
@flags.option("--tail", section="Log", type=click.IntRange(min=0), metavar="N", help="Only the last N lines. [all]")
@flags.option(
    "--timestamps", section="Log", is_flag=True, help="Show the time before each line; for logs of pods only."
)
@platform_option
@cluster_options
def command(
    name: str, follow: bool, rank: str, previous: bool, attempt: int | None, since: str | None, **params: Any
) -> int:
    """Print the log of a run: its supervisors' lines, and after [rank R] those of its training processes.

    The last attempt is read from its pods; earlier ones, and those whose pods are gone, from storage. With -f it waits
    for the pods to start and says what they are waiting for. Ctrl-C does not stop the run.
    """
    if follow and (previous or attempt is not None):
        raise UsageError("--follow shows the last attempt: leave out --previous and --attempt")
    if previous and attempt is not None:
        raise UsageError("--previous and --attempt both name an attempt: give one of them")
    query = LogQuery(
        rank=None if rank == "all" else _number(rank),
        attempt=attempt,
        previous=previous,
        since_seconds=quantities.seconds(since, "--since") if since else None,
        **{each: params[each] for each in ("node", "tail", "timestamps", "platform_file")},
    )
    is_shown = sys.stdout.isatty()
    read = log_sources.follow if follow else log_sources.read
    with connect_from(params) as cluster:
        try:
            for line in read(cluster, name, query, live.say):
                # what a model or a dataset says must not steer a terminal
                click.echo(escape_controls(line) if is_shown else line)
        except KeyboardInterrupt:
            live.say(f"detached: run {name} keeps running; `lorajob logs {name} -f` shows it again")
    return SUCCEEDED.code


def _number(rank: str) -> int:
    if not rank.isdecimal():
        raise UsageError(f"--rank is {rank!r}: it must be a number from 0, or all")
    return int(rank)
