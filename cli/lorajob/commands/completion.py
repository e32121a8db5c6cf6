"""`lorajob completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from lorajob.options.command import Command


@click.command("completion", cls=Command, examples=["source <(lorajob completion bash)"])
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    To keep it, write it where the shell looks for completions, e.g. ~/.config/fish/completions/lorajob.fish.
    """
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completion(context.find_root().command, {}, "lorajob", "_LORAJOB_COMPLETE").source())
