"""`lorajob platform`."""

from __future__ import annotations

from lorajob.options.command import LazyGroup

command = LazyGroup(
    "platform",
    lazy={"show": ("lorajob.commands.platform.show", "Print the platform's config that is in force.")},
    help="Look at what the people who run the cluster decided for everyone's runs.",
)
