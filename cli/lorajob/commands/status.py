"""`lorajob status`."""

from __future__ import annotations

from typing import Any

import click

from lorajob import tables
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.options.run_names import run_name
from lorajob.runs import lookup, page
from lorajob.runs.document import to_dict
from lorajob.runs.follow import exit_code_of
from lorajob.runs.live import say
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command(
    "status",
    cls=Command,
    examples=["lorajob status zhenhuan", "lorajob status zhenhuan --exit-code -o json"],
)
@run_name
@flags.option(
    "--exit-code",
    "with_exit_code",
    section="Run",
    is_flag=True,
    help="End with 0 when the run has succeeded, 100 failed, 101 not finished, 103 cancelled.",
)
@output_option()
@cluster_options
def command(name: str, with_exit_code: bool, output_form: str, **params: Any) -> int:
    """Show one run: its phase and why, how far it is, its pods, and what to do when it failed."""
    with connect_from(params) as cluster:
        found = lookup.read(cluster, name)
    for note in found.notes:
        say(note)
    if output_form == "name":
        click.echo(found.status.name)
    elif output_form in ("json", "yaml"):
        click.echo(tables.document(to_dict(found.status), output_form), nl=False)
    else:
        tables.show(page.page(found.status, found.seen, wide=output_form == "wide"))
    return exit_code_of(found.status) if with_exit_code else SUCCEEDED.code
