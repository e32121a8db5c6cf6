"""`lorajob list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lorajob import tables
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.runs import lookup, page
from lorajob.runs.document import list_to_dict
from lorajob.runs.run_status import PHASES
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command(
    "list",
    cls=Command,
    examples=[
        "lorajob list",
        "lorajob list -A --phase Training -o wide",
        "lorajob list -l lorajob.dev/model=qwen3-8b -o json",
    ],
)
@flags.option("-A", "--all-namespaces", section="Run", is_flag=True, help="Runs of every namespace.")
@flags.option(
    "-l",
    "--selector",
    section="Run",
    default="",
    metavar="LABELS",
    help="Only runs with these labels, in kubectl's notation.",
)
@flags.option(
    "--phase",
    "phases",
    section="Run",
    multiple=True,
    type=click.Choice(PHASES, case_sensitive=False),
    metavar="PHASE",
    help=f"Only runs in this phase; may be given again: {', '.join(PHASES)}.",
)
@output_option()
@cluster_options
def command(all_namespaces: bool, selector: str, phases: Sequence[str], output_form: str, **params: Any) -> int:
    """List the runs of a namespace, with what each one does and how far it is; the newest last.

    It takes one list of Jobs, however many runs there are. `lorajob status` shows more about one run.
    """
    with connect_from(params) as cluster:
        found = [
            status
            for status in lookup.every(cluster, selector=selector, all_namespaces=all_namespaces)
            if not phases or status.phase in phases
        ]
        if not found and not all_namespaces:
            cluster.check_namespace()
    now = cluster.now()
    found.sort(key=lambda status: (status.created or now, status.namespace, status.name))
    if output_form == "name":
        click.echo("".join(f"{status.namespace}/" * all_namespaces + f"{status.name}\n" for status in found), nl=False)
    elif output_form in ("json", "yaml"):
        click.echo(tables.document(list_to_dict(found), output_form), nl=False)
    elif found:
        tables.show(page.runs(found, now, wide=output_form == "wide", namespaces=all_namespaces))
    else:
        such = "such runs" if phases or selector else "runs"
        click.echo(f"no {such} in {'any namespace' if all_namespaces else f'namespace {cluster.namespace}'}", err=True)
    return SUCCEEDED.code
