"""The command `lorajob`: its commands by name, each loaded from its module when it is called."""

from __future__ import annotations

import click

from lorajob.options.command import LazyGroup
from lorajob_runtime import __version__

COMMANDS = {
    "run": ("lorajob.commands.run", "Train an adapter here, in the foreground."),
    "submit": ("lorajob.commands.submit", "Train an adapter in a Kubernetes cluster."),
    "plan": ("lorajob.commands.plan", "Show what a run would take, before anything is spent."),
    "list": ("lorajob.commands.list_runs", "List runs on the cluster, with how far each one is."),
    "status": ("lorajob.commands.status", "Show one run: its phase and why, its pods, what to do."),
    "watch": ("lorajob.commands.watch", "Follow a run until it ends."),
    "logs": ("lorajob.commands.logs", "Print the log of a run, also of pods that are gone."),
    "wait": ("lorajob.commands.wait", "Wait until runs have ended."),
    "cancel": ("lorajob.commands.cancel", "Stop runs for good; record and checkpoints stay."),
    "suspend": ("lorajob.commands.suspend", "Stop runs for a while, with a checkpoint."),
    "resume": ("lorajob.commands.resume", "Resume suspended runs."),
    "retry": ("lorajob.commands.retry", "Start a failed or cancelled run again, from its last checkpoint."),
    "delete": ("lorajob.commands.delete", "Remove runs, and their results too if asked."),
    "platform": ("lorajob.commands.platform", "Look at what the platform decided for everyone's runs."),
    "generate": ("lorajob.commands.generate", "Ask a trained adapter, or its base model."),
    "artifacts": ("lorajob.commands.artifacts", "Write a run's result in the form that another program wants."),
    "data": ("lorajob.commands.data", "Look at a dataset before training on it."),
    "models": ("lorajob.commands.models", "List the models known by name."),
    "init": ("lorajob.commands.init", "Write a commented lorajob.yaml to start from."),
    "completion": ("lorajob.commands.completion", "Print the completion script of a shell."),
    "version": ("lorajob.commands.version", "Print the versions of lorajob, what it trains with, and the cluster."),
}


@click.group("lorajob", cls=LazyGroup, lazy=COMMANDS)
@click.version_option(__version__, "-V", "--version", message="lorajob %(version)s")
@click.option("--debug", is_flag=True, help="Show where in the program an error came from.")
def cli(debug: bool) -> None:
    """From a dataset to a LoRA adapter with one command.

    `lorajob run --data FILE` trains here; `lorajob COMMAND --help` explains a command and has an example.
    """
