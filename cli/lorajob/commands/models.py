"""`lorajob models`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from lorajob.options.command import Command
from lorajob_runtime.contract import catalog, hubs
from lorajob_runtime.contract.catalog import ModelEntry
from lorajob_runtime.contract.spec import API_VERSION
from lorajob_runtime.contract.text import decimal_size, parameter_count

PIPE_WIDTH = 200
"""Columns of a table that no terminal limits."""


HELP = f"""List the models known by name.

Any other model works too, as {hubs.FORMS} or a folder with its files.
"""


@click.command("models", cls=Command, help=HELP, examples=["lorajob models", "lorajob models -o name"])
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml", "name"]), default="table", help="Form of the output."
)
def command(output: str) -> None:
    """Lists them as a table, as their names, or with all that is known of each."""
    entries = list(catalog.entries().values())
    if output == "name":
        click.echo("\n".join(entry.name for entry in entries))
    elif output == "table":
        _print_table(entries)
    else:
        document: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "ModelList",
            "items": [_item(entry) for entry in entries],
        }
        click.echo(_dump(document, output), nl=False)


def _item(entry: ModelEntry) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for name, value in dataclasses.asdict(entry).items():
        ids = {hubs.BY_NAME[hub].catalog_field: model_id for hub, model_id in entry.ids.items()}
        item |= ids if name == "ids" else {name: value}
    return item | {"trains": True}


def _first_address(entry: ModelEntry) -> str:
    return next((hub.address(entry.ids[hub.name]) for hub in hubs.MODEL_HUBS if hub.name in entry.ids), "")


def _print_table(entries: Sequence[ModelEntry]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAME", no_wrap=True)
    table.add_column("PARAMETERS", justify="right", no_wrap=True)
    table.add_column("ACTIVE", justify="right", no_wrap=True)
    table.add_column("KIND", no_wrap=True)
    table.add_column("DOWNLOAD", justify="right", no_wrap=True)
    table.add_column("LICENCE")
    table.add_column("SOURCE", overflow="fold")
    for entry in entries:
        source = f"the package {entry.embedded}" if entry.embedded else _first_address(entry)
        table.add_row(
            entry.name,
            parameter_count(entry.parameters),
            parameter_count(entry.active_parameters),
            "dense" if entry.is_dense else "moe",
            decimal_size(entry.weights_bytes),
            entry.licence,
            source,
        )
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False).print(table)


def _dump(document: dict[str, Any], output: str) -> str:
    if output == "json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    from lorajob.spec import spec_file

    return spec_file.dumps(document)
