"""`lorajob plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lorajob import tables
from lorajob.errors import UsageError
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.plan import gpus, plan_document, plan_text, run_plan
from lorajob.platform import platform_lookup
from lorajob.platform.platform_config import Platform
from lorajob.spec import resolve
from lorajob.submit import dataset
from lorajob_runtime.contract.errors import LorajobError


@click.command(
    "plan",
    cls=Command,
    examples=[
        "lorajob plan --model glm-4.5-air --gpus 4 --gpu-memory 80",
        "lorajob plan -m qwen3-8b -d huanhuan.json --gpu-type h200 -o json",
        "lorajob plan -f lorajob.yaml --set lora.rank=64",
    ],
    params=flags.options(command="plan"),
)
@flags.files_option
@flags.settings_option
@flags.option(
    "--gpu-memory",
    section="Resources",
    metavar="SIZE",
    help="Memory of one GPU: its nominal size, like 80, or exactly, like 79GiB. [that of the platform's GPU type]",
)
@output_option("table", "json", "yaml")
@platform_option
@cluster_options
@click.pass_context
def command(
    context: click.Context,
    /,
    files: Sequence[Path],
    settings: Sequence[str],
    gpu_memory: str | None,
    output_form: str,
    platform_file: Path | None,
    **params: Any,
) -> None:
    """Show what a run would take, before anything is downloaded or spent.

    Memory on each GPU and what takes it, how the model is spread over the GPUs, how many GPUs of each common size would
    be enough, and roughly how long it takes. It needs no cluster, but uses what a platform says about its GPUs.
    """
    found = _platform(platform_file, params)
    resolved = resolve.resolve(files, flags.given(context), settings, defaults=found.defaults if found else None)
    data = resolved.spec.data
    is_missing = dataset.is_missing(data)
    local = dataset.inspect(data) if dataset.is_local(data) and not is_missing else None
    plan = run_plan.plan(resolved.spec, gpus.find(resolved.spec, found, gpu_memory), local)
    if is_missing:
        _warn(f"{data.source} does not exist: the number of steps and the time of an epoch are not known")
    if output_form != "table":
        click.echo(tables.document(plan_document.to_dict(plan), output_form), nl=False)
        return
    tables.show(plan_text.lines(plan))
    for warning in plan_text.warnings(plan) if plan.placement is not None else ():
        _warn(warning)


def _warn(text: str) -> None:
    click.echo(click.style("warning: ", fg="yellow") + text, err=True)


def _platform(file: Path | None, params: dict[str, Any]) -> Platform | None:
    """The platform, where there is one. Raises UsageError and ConfigError for a file that is named."""
    if platform_lookup.named_file(file) is not None:
        return platform_lookup.load(None, file).platform
    try:
        with connect_from(params) as cluster:
            return platform_lookup.load(cluster).platform
    except UsageError:
        if params["kubeconfig"] or params["kube_context"]:
            raise
    except LorajobError as error:
        click.echo(f"continuing without a platform: {error.message}", err=True)
    return None
