"""What is wrong before anything has started: a flag, a spec file, an argument. Ends with exit code 2."""

from __future__ import annotations

from lorajob_runtime.exits import ConfigError, FailureClass

USAGE = FailureClass(code=2, name="usage", final=True, hint="")


class UsageError(ConfigError):
    """A flag, an argument or a spec file is wrong; nothing was started."""

    failure = USAGE
