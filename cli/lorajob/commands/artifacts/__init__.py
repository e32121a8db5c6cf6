"""`lorajob artifacts`."""

from __future__ import annotations

from lorajob.options.command import LazyGroup

command = LazyGroup(
    "artifacts",
    lazy={"convert": ("lorajob.commands.artifacts.convert", "Write an adapter in the layout of another program.")},
    help="Write a run's result in the form that another program wants.",
)
