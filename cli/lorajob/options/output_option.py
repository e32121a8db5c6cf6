"""`-o/--output` of the commands that read: a table for a person, JSON and YAML for programs, or names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lorajob.options import flags

FORMS = ("table", "wide", "json", "yaml", "name")


def output_option(*forms: str) -> Callable[[Callable[..., Any]], Any]:
    """`-o/--output` with these forms (all of FORMS, without any); the first is the default."""
    choices = forms or FORMS
    return flags.option(
        "-o",
        "--output",
        "output_form",
        section="Run",
        type=click.Choice(choices),
        default=choices[0],
        help=f"Form of the output. [{choices[0]}]",
    )
