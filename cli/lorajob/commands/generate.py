"""`lorajob generate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from lorajob.errors import UsageError
from lorajob.options.command import Command
from lorajob.options.flags import option
from lorajob.options.installed import require_runtime
from lorajob_runtime.contract.errors import ConfigError

if TYPE_CHECKING:
    from lorajob_runtime.generate import Request

Shown = Literal["auto", "show", "hide"]


@click.command(
    "generate",
    cls=Command,
    examples=[
        "lorajob generate zhenhuan --prompt 'Who are you?' --base",
        "lorajob generate runs/zhenhuan/adapter",
        "lorajob generate s3://models/lora/zhenhuan --file questions.txt > answers.jsonl",
    ],
)
@click.argument("target", metavar="RUN|DIR")
@option("--prompt", section="What to ask", metavar="TEXT", help="One question. [a conversation]")
@option(
    "--file",
    section="What to ask",
    metavar="FILE",
    help="One question a line, text or JSON; answers are JSON lines. - is the standard input.",
)
@option("--system", section="What to ask", metavar="TEXT", help="System prompt; '' for none. [as trained]")
@option(
    "--base", "compare_base", section="What to ask", is_flag=True, help="Ask the untuned model too, for comparison."
)
@option("--max-new-tokens", section="How to answer", type=int, default=512, help="Longest answer in tokens. [512]")
@option(
    "--temperature",
    section="How to answer",
    type=float,
    default=0.0,
    help="Above 0, tokens are sampled, more randomly the higher it is. [0: the likeliest token each time]",
)
@option("--top-k", section="How to answer", type=int, help="Sample only from this many of the likeliest tokens.")
@option("--seed", section="How to answer", type=int, help="Seed of the sampling: the same one gives the same tokens.")
@option(
    "--reasoning",
    section="How to answer",
    type=click.Choice(["auto", "show", "hide"]),
    help="Whether to show what a model thinks before its answer. [auto: at a terminal; JSON lines always have it]",
)
@option("--thoughts", section="How to answer", type=click.Choice(["auto", "show", "hide"]), hidden=True)
@option(
    "-s", "--storage", section="Where it is", default="runs", metavar="URI", help="Where RUN is looked for. [./runs]"
)
@option(
    "--trust-remote-code",
    section="Where it is",
    is_flag=True,
    help="Run the Python code in the base model's repository.",
)
def command(**params: Any) -> None:
    """Ask a trained adapter, with the template and the thinking mode that it was trained with.

    RUN is the name of a run, or its address s3://BUCKET/PREFIX/NAME; DIR the folder of a run, an adapter or a
    checkpoint. With neither --prompt nor --file it starts a conversation.
    """
    require_runtime("generating")
    from lorajob_runtime.generate import run

    run(request_of(**params), sys.stdout, sys.stdin)


def request_of(*, reasoning: Shown | None, thoughts: Shown | None, **params: Any) -> Request:
    """What is asked for; --thoughts is the former name of --reasoning. Raises UsageError for what does not go."""
    from lorajob_runtime.generate import Request

    try:
        return Request(reasoning=reasoning or thoughts or "auto", **params)
    except ConfigError as error:
        raise UsageError(error.message) from error
