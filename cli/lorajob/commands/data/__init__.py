"""`lorajob data`."""

from __future__ import annotations

from lorajob.options.command import LazyGroup

command = LazyGroup(
    "data",
    lazy={"check": ("lorajob.commands.data.check", "Show how a dataset would be trained on.")},
    help="Look at a dataset before training on it.",
)
