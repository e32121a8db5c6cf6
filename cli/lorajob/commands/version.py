"""`lorajob version`."""

from __future__ import annotations

import importlib.metadata
import json
import platform

import click

from lorajob.command import Command
from lorajob_runtime import __version__
from lorajob_runtime.spec import API_VERSION

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "boto3", "swanlab", "modelscope-hub")


@click.command("version", cls=Command, examples=["lorajob version -o json"])
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output.")
def command(output: str) -> None:
    """Print the versions of lorajob and of what it trains with."""
    versions = {"lorajob": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    if output == "json":
        click.echo(json.dumps({"apiVersion": API_VERSION, "kind": "Version", "versions": versions}, indent=2))
        return
    for name, version in versions.items():
        click.echo(f"{name:<15}{version}")
