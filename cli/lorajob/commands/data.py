"""`lorajob data`."""

from __future__ import annotations

from lorajob.command import LazyGroup

command = LazyGroup(
    "data",
    lazy={"check": ("lorajob.commands.data_check", "Show how a dataset would be trained on.")},
    help="Look at a dataset before training on it.",
)
