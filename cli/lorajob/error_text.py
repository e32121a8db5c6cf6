"""An error as a person reads it on stderr: one line, and one with what to do."""

from __future__ import annotations

import click

from lorajob_runtime.contract.text import one_line


def print_error(message: str, hint: str = "") -> None:
    """`lorajob: error: …` and `hint: …` on stderr, coloured where it is a terminal."""
    click.echo(click.style("lorajob: error: ", fg="red", bold=True) + one_line(message), err=True)
    if hint:
        click.echo(click.style("hint: ", fg="cyan") + one_line(hint), err=True)
