"""The environment of this process: the one place where the command line reads its variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def process_variables() -> Mapping[str, str]:
    """The environment variables of this process, as they are now."""
    return os.environ


def home_folder(variables: Mapping[str, str]) -> Path:
    """The user's home folder: HOME, else what the system says."""
    return Path(variables.get("HOME") or Path.home())


def config_folder(variables: Mapping[str, str]) -> Path:
    """Where the user's own configuration is: XDG_CONFIG_HOME, else ~/.config."""
    return Path(variables.get("XDG_CONFIG_HOME") or home_folder(variables) / ".config")
