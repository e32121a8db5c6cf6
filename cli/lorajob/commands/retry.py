"""`lorajob retry`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.options.run_names import run_name
from lorajob.platform import platform_lookup
from lorajob.runs import live, retry
from lorajob.submit import manifest
from lorajob_runtime import __version__
from lorajob_runtime.contract.errors import SUCCEEDED


@click.command(
    "retry",
    cls=Command,
    examples=["lorajob retry zhenhuan", "lorajob retry zhenhuan --set resources.timeout=48h --watch"],
)
@run_name
@flags.option(
    "--set",
    "settings",
    section="Run",
    multiple=True,
    metavar="FIELD=VALUE",
    help="New value for a field that may change when a run resumes, e.g. resources.gpus=8.",
)
@platform_option
@flags.option("--dry-run", section="Run", is_flag=True, help="Let the cluster check the change without making it.")
@flags.option("--watch", section="Run", is_flag=True, help="Follow the run until it ends.")
@cluster_options
def command(
    name: str, settings: Sequence[str], platform_file: Path | None, dry_run: bool, watch: bool, **params: Any
) -> int:
    """Start a failed or cancelled run again, from its last checkpoint.

    Its Job is created again under the same name, for the platform as it is now. If this is interrupted, the same
    command continues it.
    """
    with connect_from(params) as cluster:
        loaded = platform_lookup.load(cluster, platform_file)
        said = retry.retry(
            cluster,
            name,
            build=lambda spec: manifest.build(spec, loaded.platform, namespace=cluster.namespace, version=__version__),
            settings=settings,
            dry_run=dry_run,
            say=live.say,
        )
        click.echo(said)
        return live.watch(cluster, name) if watch and not dry_run else SUCCEEDED.code
