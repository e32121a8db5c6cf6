"""`lorajob watch`."""

from __future__ import annotations

from typing import Any

import click

from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.options.run_names import run_name
from lorajob.runs import live


@click.command(
    "watch", cls=Command, examples=["lorajob watch zhenhuan", "lorajob watch zhenhuan -o json > zhenhuan.jsonl"]
)
@run_name
@output_option("table", "json")
@cluster_options
def command(name: str, output_form: str, **params: Any) -> int:
    """Follow a run until it ends: a view that refreshes on a terminal, elsewhere a line for every change.

    Ctrl-C detaches and does not stop the run. Ends with 0 when the run has succeeded, 100 failed, 103 cancelled; with
    -o json every change is one JSON object on one line.
    """
    with connect_from(params) as cluster:
        return live.watch(cluster, name, form=output_form)
