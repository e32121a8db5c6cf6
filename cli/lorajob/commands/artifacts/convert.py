"""`lorajob artifacts convert`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorajob.errors import UsageError
from lorajob.options.command import Command
from lorajob.options.flags import option
from lorajob.options.installed import require_runtime
from lorajob_runtime.contract.text import plural

if TYPE_CHECKING:
    from lorajob_runtime.publish.convert import Conversion
    from lorajob_runtime.publish.expert_layouts import Layout

VLLM_RANKS = (16, 32, 64, 128, 256, 320, 512)
"""What `vllm serve --max-lora-rank` may be, from its default on."""


@click.command(
    "convert",
    cls=Command,
    examples=[
        "lorajob artifacts convert zhenhuan --layout vllm --output zhenhuan-vllm",
        "lorajob artifacts convert s3://models/lora/zhenhuan --layout vllm --output zhenhuan-vllm",
        "lorajob artifacts convert runs/zhenhuan/adapter --layout per-expert --output zhenhuan-per-expert",
    ],
)
@click.argument("target", metavar="RUN|DIR")
@option(
    "--layout",
    "layout_name",
    section="What to write",
    type=click.Choice(["vllm", "per-expert"]),
    default="vllm",
    help="vllm: each expert separately, with everything that vLLM expects. per-expert: only what was trained. [vllm]",
)
@option(
    "--output",
    section="What to write",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write to, which must not exist yet.",
)
@option(
    "-s", "--storage", section="Where it is", default="runs", metavar="URI", help="Where RUN is looked for. [./runs]"
)
def command(target: str, layout_name: Layout, output: Path, storage: str) -> None:
    """Write an adapter in the layout of another program, beside the one that PEFT loads.

    RUN is the name of a run, or its address s3://BUCKET/PREFIX/NAME; DIR the folder of a run, an adapter or a
    checkpoint. Only routed experts look different in another layout: other adapters are copied.
    """
    if output.exists():
        raise UsageError(f"--output is {str(output)!r}: it exists already, it must be a new folder")
    require_runtime("converting an adapter")
    from lorajob_runtime.models import families
    from lorajob_runtime.publish import convert
    from lorajob_runtime.system import environment

    done = convert.convert(
        target,
        output,
        layout_name=layout_name,
        storage=storage,
        environment=environment.read(),
        notify=lambda line: click.echo(line, err=True),
    )
    click.echo(_written(done, output))
    if layout_name == "vllm":
        names = families.expert_names(done.model_type)
        if names is not None and names.vllm_note is not None and done.converted.layers:
            click.echo(click.style("warning: ", fg="yellow") + names.vllm_note, err=True)
        if done.converted.rank > VLLM_RANKS[-1]:
            said = f"vLLM serves adapters of rank {VLLM_RANKS[-1]} at most, and this one has {done.converted.rank}"
            click.echo(click.style("warning: ", fg="yellow") + said, err=True)
        else:
            click.echo(f"  {_serve(done, output)}")


def _written(done: Conversion, output: Path) -> str:
    converted = done.converted
    if not converted.layers:
        return f"{output}: no routed expert has an adapter, so the adapter was copied unchanged"
    layers = plural(converted.layers, "layer")
    return f"{output}: the experts of {layers} written separately, {converted.experts} in each"


def _serve(done: Conversion, output: Path) -> str:
    """The command that serves what was written."""
    words = ["vllm", "serve", done.base or "BASE", "--enable-lora"]
    if done.converted.rank > VLLM_RANKS[0]:
        words += ["--max-lora-rank", str(min(rank for rank in VLLM_RANKS if rank >= done.converted.rank))]
    return shlex.join([*words, "--lora-modules", f"{output.name}={output}"])
