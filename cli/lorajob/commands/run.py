"""`lorajob run`."""

from __future__ import annotations

import dataclasses
import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lorajob.options import flags
from lorajob.options.command import Command
from lorajob.options.installed import require_runtime
from lorajob.plan import run_plan
from lorajob.runs.summary import Summary, location
from lorajob.spec import resolve, spec_file
from lorajob.submit import dataset
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import STOPPED, SUCCEEDED
from lorajob_runtime.contract.spec import RunSpec, StorageSpec

DEFAULT_STORAGE = "./runs"


@click.command(
    "run",
    cls=Command,
    examples=[
        "lorajob run --data poems.json",
        "lorajob run -m qwen3-8b -d huanhuan.json --name zhenhuan --storage s3://models/lora --gpus 4",
        "lorajob run -f lorajob.yaml --set train.maxSteps=8 --processes 2",
    ],
    params=flags.options(),
)
@flags.files_option
@flags.settings_option
@flags.option(
    "-p",
    "--processes",
    section="Resources",
    type=click.IntRange(1, 64),
    help="Training processes, on GPUs where there are any, else on the CPU. [one per GPU, or 1]",
)
@flags.option(
    "-o",
    "--output",
    section="Run",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text: progress for a person; json: the run's events, one JSON object a line. [text]",
)
@flags.option("--dry-run", section="Run", is_flag=True, help="Print the whole spec as YAML and start nothing.")
@click.pass_context
def command(
    context: click.Context,
    /,
    files: Sequence[Path],
    settings: Sequence[str],
    processes: int | None,
    output: str,
    dry_run: bool,
    **_: Any,
) -> int:
    """Train an adapter here, in the foreground.

    The result is STORAGE/NAME/adapter. The same command with the same name resumes from the last checkpoint. What no
    flag sets comes from ./lorajob.yaml, then from the model's recipe, then from the defaults shown here.
    """
    resolved = resolve.resolve(files, flags.given(context), settings)
    run_plan.check(resolved.spec)
    spec = complete(resolved.spec)
    if dry_run:
        click.echo(spec_file.dumps(specs.to_dict(spec, defaults=True)), nl=False)
        return SUCCEEDED.code
    require_runtime("training")
    if dataset.is_local(spec.data) and not dataset.is_missing(spec.data):
        # of rows in no form that can be trained on it is said before a model is fetched for them; one that is missing
        # may be that of a finished run
        dataset.inspect(spec.data)
    for path in resolved.files:
        click.echo(f"spec: {path}", err=True)
    click.echo(f"run: {spec.run_name}, results in {spec.storage.uri}", err=True)
    if processes is None and not resolved.gives("resources.gpus"):
        from lorajob_runtime.system.gpus import visible_gpus

        processes = visible_gpus() or 1
    return train(spec, processes=processes, output=output)


def complete(spec: RunSpec) -> RunSpec:
    """The spec with the name and storage that a run needs and the user need not give."""
    return dataclasses.replace(
        spec,
        name=spec.name or specs.default_name(spec.model.name, random.SystemRandom()),
        storage=StorageSpec(uri=spec.storage.uri or DEFAULT_STORAGE),
    )


def train(spec: RunSpec, *, processes: int | None, output: str) -> int:
    """Runs the supervisor in this process and prints what it came to. Returns the exit code of the run."""
    from lorajob_runtime.run import supervisor
    from lorajob_runtime.system import environment, key_isolation

    summary = Summary()
    key_isolation.keep_private()
    code = supervisor.run(
        spec,
        environment.read(),
        output="json" if output == "json" else "text",
        listeners=[summary],
        processes=processes,
    )
    if output == "text":
        for line in closing_lines(spec, summary, code):
            click.echo(line)
    return code


def closing_lines(spec: RunSpec, summary: Summary, code: int) -> list[str]:
    """What is printed at the end: loss before and after, where the adapter is, and what to do next."""
    uri, name = spec.storage.uri or DEFAULT_STORAGE, spec.run_name
    if code == STOPPED.code:
        return [f"stopped; continue with the same command and --name {name}"]
    if code != SUCCEEDED.code:
        return []
    adapter = location(uri, name)
    lines = [line for line in (summary.loss_line(),) if line]
    lines.append(f"adapter: {adapter}")
    trusted = " --trust-remote-code" if spec.model.trust_remote_code else ""
    lines.append(f"next:    lorajob generate {shlex.quote(adapter)}{trusted} --prompt 'Who are you?'")
    return lines
