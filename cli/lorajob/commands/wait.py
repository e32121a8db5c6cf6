"""`lorajob wait`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from lorajob.cluster import Cluster, NotFound
from lorajob.error_text import print_error
from lorajob.errors import UsageError
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.options.run_names import check, run_names
from lorajob.platform import quantities
from lorajob.runs.follow import TimedOutError, exit_code_of, wait_for_end
from lorajob.runs.live import closing_lines, say
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command(
    "wait",
    cls=Command,
    examples=[
        "lorajob wait zhenhuan",
        "lorajob wait zhenhuan first second --timeout 2h",
    ],
)
@run_names
@flags.option(
    "--timeout",
    section="Run",
    metavar="TIME",
    help="Longest time to wait for all of them, like 90m, 24h or 3d. [no limit]",
)
@cluster_options
def command(names: Sequence[str], timeout: str | None, **params: Any) -> int:
    """Wait until runs have ended.

    It waits for each of them, even when one does not exist or its time is over. It ends with 0 when all have
    succeeded, else with 100 failed, 103 cancelled, 124 timed out or 102 not found: that of the first one named that did
    not succeed. Ctrl-C stops the waiting, not the runs.
    """
    deadline = None if timeout is None else time.monotonic() + quantities.seconds(timeout, "--timeout")
    first = SUCCEEDED.code
    with connect_from(params) as cluster:
        for name in dict.fromkeys(names):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            code = _wait(cluster, name, left)
            first = first or code
    return first


def _wait(cluster: Cluster, name: str, seconds: float | None) -> int:
    """Waits for one run and says how it ended. Returns its exit code; raises what has to do with no single run."""
    try:
        status = wait_for_end(cluster, check(name), timeout_seconds=seconds, say=say)
    except (NotFound, TimedOutError, UsageError) as error:
        print_error(error.message, error.hint)
        return error.failure.code
    click.echo(f"run {name}: {status.phase}" + (f": {status.reason}" if status.reason else ""))
    for line in closing_lines(status):
        click.echo(line)
    return exit_code_of(status)
