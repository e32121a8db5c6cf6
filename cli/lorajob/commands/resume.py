"""`lorajob resume`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lorajob.options import flags, run_names
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.runs import lifecycle
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command("resume", cls=Command, examples=["lorajob resume zhenhuan"])
@run_names.run_names
@flags.option("--dry-run", section="Run", is_flag=True, help="Let the cluster check the change without making it.")
@cluster_options
def command(names: Sequence[str], dry_run: bool, **params: Any) -> int:
    """Resume suspended runs from their last checkpoint.

    A run that was cancelled, or has failed, is started again by `lorajob retry`.
    """
    with connect_from(params) as cluster:
        run_names.each(names, lambda name: click.echo(lifecycle.resume(cluster, name, dry_run=dry_run)))
    return SUCCEEDED.code
