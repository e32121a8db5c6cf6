"""`lorajob data check`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lorajob.options import flags
from lorajob.options.command import Command
from lorajob.options.installed import require_runtime
from lorajob.spec import resolve
from lorajob_runtime.contract.errors import DATA, SUCCEEDED, DataError
from lorajob_runtime.contract.spec import API_VERSION

MODEL_FIELDS = ("model.name", "model.source", "model.revision", "model.trustRemoteCode")


@click.command(
    "check",
    cls=Command,
    examples=[
        "lorajob data check poems.json",
        "lorajob data check law.jsonl -m qwen3-8b --columns system=instruction,instruction=input,output=output",
    ],
    params=flags.options(*MODEL_FIELDS, "data.", without=["data.source"]),
)
@click.argument("source", metavar="[FILE]", required=False)
@flags.files_option
@flags.settings_option
@flags.option("--rows-shown", default=3, metavar="N", type=click.IntRange(min=0), help="Rows shown as trained. [3]")
@flags.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output. [text]")
@click.pass_context
def command(
    context: click.Context,
    /,
    source: str | None,
    files: Sequence[Path],
    settings: Sequence[str],
    rows_shown: int,
    output: str,
    **_: Any,
) -> int:
    """Show how a dataset would be trained on: the form of its rows, what the model sees, and which tokens carry loss.

    No weights are downloaded or loaded, and nothing is trained. Ends with 11 when a run with this dataset would.
    """
    given = flags.given(context) | ({"data.source": source} if source is not None else {})
    spec = resolve.resolve(files, given, settings).spec

    require_runtime("looking at a dataset")
    from lorajob_runtime.data import process
    from lorajob_runtime.fetch import fetch_tokenizer
    from lorajob_runtime.system import environment

    model = fetch_tokenizer(spec.model, environment=environment.read(), notify=lambda line: click.echo(line, err=True))
    try:
        checked = process.check(spec, model_path=model.path, shown_rows=rows_shown, colour=sys.stdout.isatty())
    except DataError as error:
        # the hint of this class is to do what was just done
        error.hint = "" if error.hint == DATA.hint else error.hint
        raise
    if output == "json":
        document = {"apiVersion": API_VERSION, "kind": "DataCheck"} | checked.report
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        click.echo(checked.text, nl=False)
    return SUCCEEDED.code if checked.report["problem"] is None else DATA.code
