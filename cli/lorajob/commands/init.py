"""`lorajob init`."""

from __future__ import annotations

from pathlib import Path

import click

from lorajob.errors import UsageError
from lorajob.options.command import Command
from lorajob.spec import template
from lorajob.spec.resolve import DEFAULT_FILE
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import ModelSpec


@click.command("init", cls=Command, examples=["lorajob init --model qwen3-8b --data huanhuan.json"])
@click.option("-m", "--model", default=ModelSpec().name, show_default=True, help="Model whose recipe is written.")
@click.option("-d", "--data", help="Dataset to name in the file.")
@click.option("--force", is_flag=True, help="Replace a lorajob.yaml that is there already.")
def command(model: str, data: str | None, force: bool) -> None:
    """Write a commented lorajob.yaml to start from.

    It holds every field: those of the model's recipe as they are, the rest commented out at their defaults.
    """
    entry = catalog.find(model)
    if entry is None and ":" not in model and not Path(model).is_dir():
        entry = catalog.get(model)  # raises with the nearest name
    if DEFAULT_FILE.exists() and not force:
        raise UsageError(f"{DEFAULT_FILE} is already here", hint="--force replaces it")
    DEFAULT_FILE.write_text(template.render(model, data, entry.recipe if entry else {}), "utf-8")
    click.echo(f"wrote {DEFAULT_FILE}")
    click.echo("next:  lorajob run --dry-run   shows the whole spec")
    click.echo("       lorajob run             trains")
