"""`lorajob platform show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lorajob import tables
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.platform import platform_lookup, platform_parsing


@click.command(
    "show",
    cls=Command,
    examples=[
        "lorajob platform show -n team",
        "lorajob platform show -o json",
        "lorajob platform show > platform.yaml",
    ],
)
@output_option("yaml", "json")
@platform_option
@cluster_options
def command(output_form: str, platform_file: Path | None, **params: Any) -> None:
    """Print the whole platform config that is in force, and on stderr where it comes from.

    Secrets appear in it only by name. --platform reads what it prints.
    """
    named = platform_lookup.named_file(platform_file)
    if named is not None:
        loaded = platform_lookup.load(None, named)
    else:
        with connect_from(params) as cluster:
            loaded = platform_lookup.load(cluster)
    click.echo(f"platform: {loaded.source}", err=True)
    click.echo(tables.document(platform_parsing.to_dict(loaded.platform), output_form), nl=False)
