"""`lorajob platform show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lorajob import output, platform
from lorajob.cluster_options import cluster_options, connect_from, platform_option
from lorajob.command import Command
from lorajob.output_option import output_option


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
    """Print the platform's config that is in force, whole, and on stderr where it comes from.

    Secrets stand in it by their names only. What it prints reads back with --platform.
    """
    named = platform.named_file(platform_file)
    if named is not None:
        loaded = platform.load(None, named)
    else:
        with connect_from(params) as cluster:
            loaded = platform.load(cluster)
    click.echo(f"platform: {loaded.source}", err=True)
    click.echo(output.document(platform.to_dict(loaded.platform), output_form), nl=False)
