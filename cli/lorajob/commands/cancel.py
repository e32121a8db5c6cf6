"""`lorajob cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lorajob.options import flags, run_names
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.runs import lifecycle
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command("cancel", cls=Command, examples=["lorajob cancel zhenhuan"])
@run_names.run_names
@flags.option("--dry-run", section="Run", is_flag=True, help="Let the cluster check the change without making it.")
@cluster_options
def command(names: Sequence[str], dry_run: bool, **params: Any) -> int:
    """Stop runs for good; their record, checkpoints and logs stay.

    A run that has ended stays as it is. `lorajob retry` resumes from the last checkpoint, `lorajob delete` removes the
    record.
    """
    with connect_from(params) as cluster:
        run_names.each(names, lambda name: click.echo(lifecycle.cancel(cluster, name, dry_run=dry_run)))
    return SUCCEEDED.code
